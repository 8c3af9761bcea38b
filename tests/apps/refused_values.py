"""Makes a trace with values that cannot be sent, in the given experiment."""

import sys

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

HALF = "\ud83e"
"""The first half of a surrogate pair, which a client's JSON may contain, or a truncated stream end in."""

delivery.start(Settings.load())
mlflow.set_experiment(sys.argv[1])
attributes = {f"half {HALF}": HALF, "big": 2**70, "list": [-(2**64), {HALF: 1}]}
with mlflow.start_span(f"half a fox {HALF}", attributes=attributes) as root:
    root.set_inputs({"question": f"half a fox {HALF}"})
    root.record_exception(f"half {HALF}")
    mlflow.update_current_trace(client_request_id="request-1", tags={"half": HALF}, metadata={"half": HALF})
    with mlflow.start_span("child"):
        pass
