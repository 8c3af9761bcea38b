"""An app that chooses its experiment after its first trace, before anything is sent."""

import os
import sys

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

delivery.start(Settings.load())
with mlflow.start_span("earlier"):
    pass
open_span = mlflow.start_span_no_context("earlier, ended later")
mlflow.set_experiment(sys.argv[1])
with mlflow.start_span("later"):
    pass
open_span.end()
if not delivery.flush(60):
    os.abort()
