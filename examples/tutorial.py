"""The tutorial's app: a chat that answers, streams and is rated. Each request is one MLflow trace."""

from collections.abc import Iterator

import mlflow
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from mlflow_middleware.fastapi import TraceMiddleware, annotate, feedback_router

app = FastAPI()
app.add_middleware(TraceMiddleware)
app.include_router(feedback_router())


class Question(BaseModel):
    """A user's question."""

    text: str


@mlflow.trace(span_type="RETRIEVER")
def search(text: str) -> list[str]:
    """Stand in for a document search."""
    return [f"a page about {word}" for word in text.split()[:2]]


@app.post("/chats/{chat_id}")
def answer(chat_id: str, question: Question) -> dict[str, str]:
    """Answer a question; the session is the chat, regardless of the headers."""
    annotate(session_id=chat_id)
    return {"answer": f"I found {' and '.join(search(question.text))}."}


@app.post("/chats/{chat_id}/stream")
def stream(chat_id: str, question: Question) -> StreamingResponse:
    """Answer word by word."""
    annotate(session_id=chat_id)

    def words() -> Iterator[str]:
        yield from (f"{page}. " for page in search(question.text))

    return StreamingResponse(words(), media_type="text/plain")
