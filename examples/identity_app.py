"""A chat on FastAPI whose ids are not in the usual headers; each trace has its conversation and its user.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn identity_app:app
"""

from typing import Any

from fastapi import FastAPI, Request

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.identity import Identity

app = FastAPI()
app.add_middleware(
    TraceMiddleware,
    session_id_from=["body.context.conversation_id", "path.chat_id", "header.X-Session-ID"],
    user_id_from=["scope.state.user_id", "header.X-User-ID"],
)


@app.post("/chats/{chat_id}")
def chat(chat_id: str, question: dict[str, Any]) -> dict[str, str]:
    """Answer; the conversation's id is in the body or else in the path."""
    return {"answer": "42"}


@app.get("/me")
def me(request: Request) -> dict[str, str]:
    """Stand in for a dependency that authenticates the user and keeps the result for the rest of the request."""
    request.state.user_id = "jane"
    return {"user": "jane"}


agents = FastAPI()


def identify(exchange: Exchange) -> Identity | None:
    """Read the conversation's id and the agent's name from the body, for one route only."""
    if exchange.route != "/agents/{agent}" or not isinstance(exchange.body, dict):
        return None
    return Identity(session_id=[exchange.body["thread"], exchange.path_params["agent"]])


agents.add_middleware(TraceMiddleware, identify=identify)


@agents.post("/agents/{agent}")
def work(agent: str, task: dict[str, Any]) -> dict[str, str]:
    """Run that agent."""
    return {"done": agent}


@app.get("/health")
@agents.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
