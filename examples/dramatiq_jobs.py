"""A Dramatiq job that a request enqueues.

::

    export BROKER=redis://127.0.0.1 MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=jobs
    uvicorn dramatiq_jobs:web
    dramatiq dramatiq_jobs
"""

import os

import dramatiq
import mlflow
from dramatiq.brokers.redis import RedisBroker
from fastapi import FastAPI

from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.request_trace import job_trace, outbound_headers

dramatiq.set_broker(RedisBroker(url=os.environ["BROKER"]))
web = FastAPI()
web.add_middleware(TraceMiddleware)


@dramatiq.actor(max_retries=0)
@job_trace("headers")
def summarize(text: str, headers: dict[str, str]) -> None:
    with mlflow.start_span("model"):
        print(text.upper())


@web.post("/summaries")
def ask(text: str) -> None:
    summarize.send(text, headers=outbound_headers())


@web.get("/health")
def health() -> None:
    """Answer the health check; not traced."""
