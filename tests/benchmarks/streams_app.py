"""An app that answers slowly in chunks, like a model; CHUNKS in the environment sets their number."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import mlflow
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from mlflow_middleware.fastapi import TraceMiddleware
from tests.benchmarks import ways  # noqa: F401 - sets logging up

CHUNKS = int(os.environ.get("CHUNKS", "20"))

app = FastAPI()


async def tokens() -> AsyncIterator[str]:
    """Send one chunk a second."""
    for number in range(CHUNKS):
        if number in (0, CHUNKS - 1):
            with mlflow.start_span(f"token {number}"):
                await asyncio.sleep(1)
        else:
            await asyncio.sleep(1)
        yield f"data: token {number}\n\n"


@app.get("/streams/{stream_id}")
async def stream(stream_id: str) -> StreamingResponse:
    return StreamingResponse(tokens(), media_type="text/event-stream")


@app.get("/health")
async def health() -> dict[str, Any]:
    return {}


app.add_middleware(TraceMiddleware)
