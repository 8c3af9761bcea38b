"""An RQ job that a request enqueues.

::

    export BROKER=redis://127.0.0.1 MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=jobs
    uvicorn rq_jobs:web
    rq worker --url $BROKER
"""

import os

import mlflow
from fastapi import FastAPI
from redis import Redis
from rq import Queue

from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.request_trace import job_trace, outbound_headers

queue = Queue(connection=Redis.from_url(os.environ["BROKER"]))
web = FastAPI()
web.add_middleware(TraceMiddleware)


@job_trace
def summarize(text: str) -> str:
    with mlflow.start_span("model"):
        return text.upper()


@web.post("/summaries")
def ask(text: str) -> None:
    queue.enqueue(summarize, text, meta=outbound_headers())


@web.get("/health")
def health() -> None:
    """Answer the health check; not traced."""
