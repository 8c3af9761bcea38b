"""A chat on FastAPI. Each request is one MLflow trace.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn fastapi_app:app
"""

from typing import Any, Literal

import mlflow
from fastapi import FastAPI
from mlflow.entities import SpanType
from pydantic import BaseModel

from mlflow_middleware.fastapi import TraceMiddleware, feedback_router


class Message(BaseModel):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(BaseModel):
    """A chat so far; the last message is the new one."""

    messages: list[Message]


app = FastAPI()
app.add_middleware(TraceMiddleware)
app.include_router(feedback_router())


async def pretend_model(conversation: Conversation) -> dict[str, Any]:
    """Stand in for a real model; the answer has OpenAI's format, which MLflow shows as a chat."""
    with mlflow.start_span("pretend_model", span_type=SpanType.CHAT_MODEL) as span:
        span.set_inputs(conversation.model_dump())
        questions = [message.content for message in conversation.messages if message.role == "user"]
        text = f"Question {len(questions)} was: {questions[-1]}" if questions else "Ask me something."
        completion = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        span.set_outputs(completion)
    return completion


@app.post("/chats/{chat_id}/messages")
async def answer(chat_id: str, conversation: Conversation) -> dict[str, Any]:
    """Answer the last message; the model's span nests under the request's."""
    return await pretend_model(conversation)


@app.post("/chats/{chat_id}/fail")
def fail(chat_id: str) -> None:
    """Fail as a model might; the trace becomes an error and holds the exception."""
    raise RuntimeError(f"the model has nothing to say in chat {chat_id}")


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
