"""Traces for four experiments: two by name, one by id, and the one that the environment names."""

import sys

import mlflow
from mlflow.entities.trace_location import MlflowExperimentLocation

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

first, second, third = sys.argv[1:4]
delivery.start(Settings.load())


def trace(name: str) -> None:
    with mlflow.start_span(name), mlflow.start_span("inner"):
        pass


trace("of the environment")
mlflow.flush_trace_async_logging()
mlflow.set_experiment(first)
trace("first")
open_span = mlflow.start_span_no_context("first, ended later")
mlflow.set_experiment(second)
trace("second")
open_span.end()
place = MlflowExperimentLocation(experiment_id=third)
with mlflow.start_span("by destination", trace_destination=place):
    pass
mlflow.start_span_no_context("by id", experiment_id=third).end()
mlflow.tracing.set_destination(place, context_local=True)
trace("by destination of the context")
mlflow.tracing.reset()
mlflow.set_experiment(first)
trace("first, once more")
