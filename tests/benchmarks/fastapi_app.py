"""The chat app on FastAPI."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from tests.benchmarks import ways

app = FastAPI()
answer = ways.handler()


@app.post("/chats/{chat_id}")
async def chat(chat_id: str, request: Request) -> dict[str, Any]:
    return answer(await request.json(), dict(request.headers))


@app.get("/health")
async def health() -> dict[str, Any]:
    return {}


if ways.WAY.startswith("ours"):
    from mlflow_middleware.fastapi import TraceMiddleware

    app.add_middleware(TraceMiddleware)
elif ways.WAY == "otel":
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    ways.instrument_by_opentelemetry()
    FastAPIInstrumentor.instrument_app(app, excluded_urls="health")

ways.ready()
