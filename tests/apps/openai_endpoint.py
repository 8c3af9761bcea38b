"""An endpoint with OpenAI's API: its model repeats the message; the model ``endless`` never stops repeating."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.post("/v1/chat/completions")
def complete(asked: dict[str, Any]) -> StreamingResponse:
    """Stream an answer to the last message."""
    return StreamingResponse(_events(asked["model"], asked["messages"][-1]["content"]), media_type="text/event-stream")


def _events(model: str, heard: str) -> Iterator[str]:
    yield _event(model, {"role": "assistant", "content": f"{model} heard"})
    yield _event(model, {"content": f": {heard}"})
    while model == "endless":
        time.sleep(0.05)
        yield _event(model, {"content": " And again."})
    yield _event(model, {}, "stop")
    yield "data: [DONE]\n\n"


def _event(model: str, delta: dict[str, str], finish_reason: str | None = None) -> str:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices}
    return f"data: {json.dumps(chunk)}\n\n"


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check."""
    return {"status": "ok"}
