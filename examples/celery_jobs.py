"""A Celery job that a request enqueues.

::

    export BROKER=redis://127.0.0.1 MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=jobs
    uvicorn celery_jobs:web
    celery -A celery_jobs:queue worker
"""

import os

import mlflow
from celery import Celery
from fastapi import FastAPI

from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.request_trace import job_trace, outbound_headers

queue = Celery("celery_jobs", broker=os.environ["BROKER"])
web = FastAPI()
web.add_middleware(TraceMiddleware)


@queue.task
@job_trace
def summarize(text: str) -> str:
    with mlflow.start_span("model"):
        return text.upper()


@web.post("/summaries")
def ask(text: str) -> None:
    summarize.apply_async((text,), headers=outbound_headers())


@web.get("/health")
def health() -> None:
    """Answer the health check; not traced."""
