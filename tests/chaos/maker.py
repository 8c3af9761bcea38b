"""Makes traces on command from standard input, and ends at its end.

``make COUNT RATE PREFIX [POISON]`` makes COUNT traces, RATE a second (0: at once); number POISON has a
session id that is too long for the server, and its trace id is printed. ``flush`` sends pending traces. Each command
is answered with a line.
"""

from __future__ import annotations

import logging
import sys
import time

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings


def make(count: int, rate: float, prefix: str, poison: int = -1) -> str:
    """Make traces; return the id of the poisonous one, or ``made``."""
    answer, start = "made", time.monotonic()
    for number in range(count):
        if rate:
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
        with mlflow.start_span("made") as span:
            request_id = f"{prefix}-{number}"
            mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})
            if number == poison:
                span.set_attribute("session.id", "x" * 300)
                answer = span.trace_id
    return answer


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    delivery.start(Settings.load())
    for line in sys.stdin:
        command, *words = line.split()
        if command == "make":
            answer = make(int(words[0]), float(words[1]), words[2], *map(int, words[3:]))
        else:
            mlflow.flush_trace_async_logging()
            answer = "flushed"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
