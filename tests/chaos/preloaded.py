"""The plain WSGI app, but that a trace was already made and stored when the workers are forked."""

import os

import mlflow

from tests.apps.wsgi_app import app

__all__ = ["app"]

mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])  # MLflow's own exporter needs it before the first trace
with mlflow.start_span("before the fork"):
    pass
mlflow.flush_trace_async_logging()
