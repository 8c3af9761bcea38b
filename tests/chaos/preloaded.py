"""The plain WSGI app, with one trace made and stored before the workers are forked."""

import os

import mlflow

from tests.apps.wsgi_app import app

__all__ = ["app"]

mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])  # MLflow's own exporter needs it before the first trace
with mlflow.start_span("before the fork"):
    pass
mlflow.flush_trace_async_logging()
