"""The chat app on Flask."""

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from tests.benchmarks import ways

app = Flask(__name__)
answer = ways.handler()


@app.post("/chats/<chat_id>")
def chat(chat_id: str) -> ResponseReturnValue:
    headers = {name.lower(): value for name, value in request.headers.items()}
    body: dict[str, Any] = request.get_json()
    return jsonify(answer(body, headers))


@app.get("/health")
def health() -> ResponseReturnValue:
    return {}


if ways.WAY.startswith("ours"):
    from mlflow_middleware.flask import MLflowMiddleware

    MLflowMiddleware(app)
elif ways.WAY == "otel":
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    ways.instrument_by_opentelemetry()
    FlaskInstrumentor().instrument_app(app, excluded_urls="health")

ways.ready()
