"""A trace with values that cannot go over the wire, in the experiment that is named."""

import sys

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

HALF = "\ud83e"
"""The first half of a surrogate pair: what a client's JSON may hold, and a cut-off stream ends in."""

delivery.start(Settings.load())
mlflow.set_experiment(sys.argv[1])
attributes = {f"half {HALF}": HALF, "big": 2**70, "list": [-(2**64), {HALF: 1}]}
with mlflow.start_span(f"half a fox {HALF}", attributes=attributes) as root:
    root.set_inputs({"question": f"half a fox {HALF}"})
    root.record_exception(f"half {HALF}")
    mlflow.update_current_trace(client_request_id="request-1", tags={"half": HALF}, metadata={"half": HALF})
    with mlflow.start_span("child"):
        pass
