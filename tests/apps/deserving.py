"""The handlers of the apps of ``tests/system/test_which_requests.py``, the same for each framework."""

from __future__ import annotations

import json
import os
from typing import Any

import mlflow
from mlflow.entities.trace_location import MlflowExperimentLocation

from mlflow_middleware import delivery
from mlflow_middleware.request_trace import drop_trace, keep_trace

OPTIONS: dict[str, Any] = json.loads(os.environ.get("APP_OPTIONS", "{}"))
"""The middleware's options that a test sets."""

OTHER = MlflowExperimentLocation(experiment_id=os.environ.get("APP_OTHER_EXPERIMENT", "0"))
"""The experiment that some requests choose."""


@mlflow.trace(trace_destination=OTHER)
def decorated() -> None:
    """Choose an experiment in a handler."""


def do(what: str) -> dict[str, Any]:
    """Do what the path names."""
    if what == "fail":
        raise RuntimeError("the model is unavailable")
    if what in ("span", "drop"):
        with mlflow.start_span(what):
            pass
    if what == "drop":
        drop_trace()
    if what == "keep":
        drop_trace()
        keep_trace()
    if what == "destination":
        mlflow.tracing.set_destination(OTHER, context_local=True)
    if what == "decorated":
        decorated()
    return {"done": what}


def left_out() -> dict[str, int]:
    """Return the counts of requests that were left out."""
    return delivery.stats().left_out
