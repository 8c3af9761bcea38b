"""Makes the traces that its arguments specify, prints its counts at each line on standard input, and ends at its end.

    python -m tests.apps.bursts COUNT [POISON]

COUNT traces are made at once; number POISON contains the word arsenic, which a stand-in refuses, or inputs with as
many characters as LARGE specifies. Each is called ``<PREFIX>-<number>``.
"""

import dataclasses
import json
import logging
import os
import sys

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
count = int(sys.argv[1])
poison = int(sys.argv[2]) if len(sys.argv) > 2 else -1
large = int(os.environ.get("LARGE", "0"))
prefix = os.environ.get("PREFIX", "burst")
delivery.start(Settings.load())


def make(number: int) -> None:
    """Make one trace."""
    with mlflow.start_span("burst") as span:
        request_id = f"{prefix}-{number}"
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})
        span.set_inputs({"question": str(number)})
        if number == poison and large:
            span.set_inputs({"question": "q" * large})
            with mlflow.start_span("child") as child:
                child.set_outputs({"answer": "a" * (large // 10)})
        elif number == poison:
            span.set_attribute("poison", "arsenic")
            print(f"poison {span.trace_id}", flush=True)


for number in range(count):
    make(number)
print("made", flush=True)
for line in sys.stdin:
    if line.strip() == "flush":
        delivery.flush(60)
    if line.strip() == "one more":
        make(count)
        count += 1
    print(json.dumps(dataclasses.asdict(delivery.stats())), flush=True)
