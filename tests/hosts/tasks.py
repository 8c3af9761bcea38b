"""Tasks that trace, in a Celery app without other services: its messages are files in ``FOLDER``."""

from __future__ import annotations

import os

import mlflow
from celery import Celery

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

folder = os.environ["FOLDER"]
app = Celery(broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
delivery.start(Settings.load())


@app.task
def work(request_id: str) -> None:
    """Trace, as an agent in the background does."""
    with mlflow.start_span("work"):
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})
