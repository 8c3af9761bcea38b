"""Makes traces before, across and after each call that makes MLflow rebuild its tracing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import mlflow
from mlflow.entities.trace_location import MlflowExperimentLocation
from mlflow.tracing import provider

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

delivery.start(Settings.load())
experiment_id = mlflow.set_experiment(sys.argv[1]).experiment_id
place = MlflowExperimentLocation(experiment_id=experiment_id)


def disable_and_enable() -> None:
    mlflow.tracing.disable()
    with mlflow.start_span("never"):
        pass
    mlflow.tracing.enable()


def trace(name: str) -> None:
    with mlflow.start_span(name), mlflow.start_span("inner"):
        pass


CALLS: dict[str, Callable[[], object]] = {
    "set_experiment": lambda: mlflow.set_experiment(sys.argv[1]),
    "set_tracking_uri": lambda: mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"] + "/"),
    "reset": mlflow.tracing.reset,
    "disable and enable": disable_and_enable,
    "set_destination": lambda: mlflow.tracing.set_destination(place),
    "set_destination here": lambda: mlflow.tracing.set_destination(place, context_local=True),
    "configure": lambda: mlflow.tracing.configure(span_processors=[lambda span: None]),
    "flush": lambda: mlflow.flush_trace_async_logging(terminate=True),
    "provider reset": provider.provider.reset,
}

for name, call in CALLS.items():
    trace(f"before {name}")
    root = mlflow.start_span_no_context(f"across {name}")
    call()
    mlflow.start_span_no_context("inner", parent_span=root).end()
    root.end()
    trace(f"after {name}")
