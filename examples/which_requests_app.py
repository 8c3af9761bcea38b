"""A FastAPI app that decides which requests have a trace, and what is kept of them.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn which_requests_app:app
"""

from fastapi import FastAPI

from mlflow_middleware.fastapi import TraceMiddleware, drop_trace

app = FastAPI()

app.add_middleware(
    TraceMiddleware,
    routes={
        "POST /search*": {"sample_ratio": 0.01, "capture_response_body": False, "experiment": "search"},
        "/agents/{agent}": {"span_type": "AGENT", "tags": {"kind": "agent"}},
    },
)


@app.post("/tools/{tool}")
def call_a_tool(tool: str) -> dict[str, str]:
    """Say that the tool was called; a ping is no work."""
    if tool == "ping":
        drop_trace()
    return {"called": tool}


@app.post("/agents/{agent}")
def work(agent: str) -> dict[str, str]:
    """Work as that agent."""
    return {"done": agent}


@app.get("/health")
def health() -> dict[str, str]:
    """Say that the app is up; not traced."""
    return {"status": "ok"}
