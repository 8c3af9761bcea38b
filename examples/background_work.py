"""Work beside a request and after it: a thread pool, a background task, an approval.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=agents
    export MLFLOW_MIDDLEWARE_TRACE_TOKEN_SECRET=$(openssl rand -hex 32)
    uvicorn background_work:app
"""

from concurrent.futures import ThreadPoolExecutor

import mlflow
from fastapi import BackgroundTasks, FastAPI, Request

from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.request_trace import carry, continue_trace, job_trace

app = FastAPI()
app.add_middleware(TraceMiddleware)
pool = ThreadPoolExecutor(4)


@mlflow.trace
def look_up(query: str) -> str:
    """Stand in for a search."""
    return f"about {query}"


@app.post("/searches")
def search(queries: list[str]) -> list[str]:
    return list(pool.map(carry(look_up), queries))


@job_trace
def index(document: str) -> int:
    with mlflow.start_span("embed"):
        return len(document)


@app.post("/documents")
def add(document: str, tasks: BackgroundTasks) -> None:
    tasks.add_task(index, document)


def plan(amount: int) -> str:
    """Stand in for an agent that proposes an action that needs approval."""
    with mlflow.start_span("plan"):
        return f"transfer {amount}"


def carry_out(what: str) -> str:
    """Stand in for the approved action."""
    with mlflow.start_span("carry_out"):
        return f"done: {what}"


@app.post("/transfers")
def propose(amount: int) -> str:
    return plan(amount)  # the answer carries X-MLflow-Trace-Token


@app.post("/approvals")
def approve(what: str, request: Request) -> str:
    with continue_trace(request.headers.get("X-MLflow-Trace-Token")):
        return carry_out(what)


@app.get("/health")
def health() -> None:
    """Answer the health check; not traced."""
