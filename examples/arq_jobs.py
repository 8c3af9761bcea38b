"""An arq job that a request enqueues.

::

    export BROKER=redis://127.0.0.1 MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=jobs
    uvicorn arq_jobs:web
    arq arq_jobs.WorkerSettings
"""

import os
from typing import Any

import mlflow
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI

from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.request_trace import job_trace, outbound_headers

web = FastAPI()
web.add_middleware(TraceMiddleware)


@job_trace("headers")  # the name of the argument that holds them
async def summarize(ctx: dict[str, Any], text: str, headers: dict[str, str]) -> str:
    with mlflow.start_span("model"):
        return text.upper()


@web.post("/summaries")
async def ask(text: str) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    await pool.enqueue_job("summarize", text, headers=outbound_headers())


@web.get("/health")
def health() -> None:
    """Answer the health check; not traced."""


class WorkerSettings:
    """The arq worker's configuration."""

    functions = (summarize,)
    redis_settings = RedisSettings.from_dsn(os.environ["BROKER"])
