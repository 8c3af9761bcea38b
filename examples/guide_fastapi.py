"""A chat on FastAPI behind a proxy, with a login, a stream, an error that the app handles, and a WebSocket.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn guide_fastapi:app
"""

from collections.abc import Iterator
from typing import Annotated

import mlflow
from fastapi import Depends, FastAPI, Header, HTTPException, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

from mlflow_middleware.fastapi import TraceMiddleware, annotate

LOGINS = {"Bearer t-1": "jane"}
"""Stands in for the code that checks a login."""

app = FastAPI()
app.add_middleware(TraceMiddleware, trusted_proxies=["127.0.0.1", "10.0.0.0/8"])


def user(authorization: Annotated[str, Header()] = "") -> str:
    """Authenticate the user, and add the user id to the trace."""
    if authorization not in LOGINS:
        raise HTTPException(401)
    annotate(user_id=LOGINS[authorization])
    return LOGINS[authorization]


@app.get("/me")
def me(user: Annotated[str, Depends(user)]) -> str:
    return user


@mlflow.trace(span_type="CHAT_MODEL")
def model(question: str) -> Iterator[str]:
    """Stand in for a model that answers word by word."""
    for word in question.split():
        yield f"data: {word}\n\n"


@app.post("/chats/{chat_id}/stream")
def stream(chat_id: str, question: str) -> StreamingResponse:
    annotate(session_id=chat_id)
    return StreamingResponse(model(question), media_type="text/event-stream")


class ModelIsBusy(Exception):
    """Raised when the model is overloaded."""


@app.exception_handler(ModelIsBusy)
def busy(request: Request, error: ModelIsBusy) -> JSONResponse:
    annotate(exception=error)
    return JSONResponse({"detail": "try again"}, status_code=503)


@app.get("/busy")
def fail() -> None:
    """Fail with an error that the app handles."""
    raise ModelIsBusy("gpt-4o")


@app.websocket("/chats/{chat_id}/socket")
async def chat(socket: WebSocket, chat_id: str) -> None:
    annotate(session_id=chat_id)
    await socket.accept()
    async for question in socket.iter_text():
        await socket.send_text(answer(question))


@mlflow.trace
def answer(question: str) -> str:
    """Answer one message of a socket: each call is a trace."""
    return f"You asked: {question}"


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
