"""A FastAPI app that decides which requests have a trace, and what its traces keep.

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
    """Confirm the call of the tool; a ping is not worth a trace."""
    if tool == "ping":
        drop_trace()
    return {"called": tool}


@app.post("/agents/{agent}")
def work(agent: str) -> dict[str, str]:
    """Run that agent."""
    return {"done": agent}


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
