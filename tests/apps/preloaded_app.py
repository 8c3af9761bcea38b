"""The plain WSGI app, with one trace made and stored before the workers are forked."""

import mlflow

from mlflow_middleware import delivery
from tests.apps.wsgi_app import app

__all__ = ["app"]

with mlflow.start_span("before the fork"):
    pass
delivery.flush(30)
