"""The chat on FastAPI.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn chat.fastapi_app:app        # in examples/; then open http://127.0.0.1:8000
"""

from typing import Literal

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from mlflow_middleware.fastapi import TraceMiddleware, feedback_router

from . import shared


class Message(BaseModel):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(BaseModel):
    """A chat so far; the last message is the new one."""

    messages: list[Message] = Field(min_length=1)
    stream: bool = False


app = FastAPI()
app.add_middleware(TraceMiddleware, exclude=shared.NOT_TRACED)
app.include_router(feedback_router())


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """The chat's page."""
    return shared.page("FastAPI")


@app.post("/chats/{chat_id}/messages")
def answer(chat_id: str, conversation: Conversation) -> Response:
    """Answer the last message, as one answer or as a stream."""
    chunks = shared.answer(conversation.model_dump()["messages"], conversation.stream)
    if conversation.stream:
        closing = BackgroundTask(chunks.close)  # Starlette does not close a generator when its client disconnects
        return StreamingResponse(shared.events(chunks), media_type="text/event-stream", background=closing)
    return JSONResponse(shared.completion(chunks))


@app.post("/chats/{chat_id}/fail")
def fail(chat_id: str) -> None:
    """Fail as a model might; the trace becomes an error and holds the exception."""
    raise RuntimeError(f"the model has nothing to say in chat {chat_id}")


@app.get("/traces/{trace_id}")
def trace(trace_id: str) -> RedirectResponse:
    """Redirect to the trace of an answer in MLflow."""
    return RedirectResponse(shared.trace_page(trace_id))


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
