"""A FastAPI app with a route for Prometheus.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn metrics_fastapi:app
"""

from fastapi import FastAPI

from mlflow_middleware.fastapi import TraceMiddleware, metrics_router

app = FastAPI()
app.add_middleware(TraceMiddleware)
app.include_router(metrics_router())  # Starlette: app.routes.append(metrics_route())


@app.get("/chats/{chat_id}")
def chat(chat_id: str) -> dict[str, str]:
    """Show a chat."""
    return {"chat": chat_id}


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
