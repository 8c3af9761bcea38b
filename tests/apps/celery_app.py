"""Tasks that trace, in a Celery app without other services: messages are files in ``FOLDER``."""

import os

import mlflow
from celery import Celery

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

folder = os.environ["FOLDER"]
app = Celery(broker="filesystem://")
app.conf.update(
    broker_transport_options={"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder},
    worker_hijack_root_logger=False,
)
delivery.start(Settings.load())


@app.task
def work(request_id: str) -> None:
    with mlflow.start_span("work"):
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})
