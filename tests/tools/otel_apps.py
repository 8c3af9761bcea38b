"""Apps with an OpenTelemetry SDK of their own that exports to a collector, and its instrumentation.

``APP_ORDER`` is its place: ``outside`` our middleware or ``inside``.
"""

from __future__ import annotations

import os
from typing import Any

import mlflow
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiOpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

IS_OUTSIDE = os.environ.get("APP_ORDER", "outside") == "outside"


def set_up() -> None:
    """Set OpenTelemetry up, as an app does."""
    provider = TracerProvider(resource=Resource.create({"service.name": "the app"}))
    exporter = OTLPSpanExporter(os.environ["APP_COLLECTOR"] + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
    trace.set_tracer_provider(provider)


if os.environ.get("APP_SET_UP", "first") == "first":
    set_up()
tracer = trace.get_tracer("the app")


def work(body: dict[str, str]) -> dict[str, str]:
    """Open a span of OpenTelemetry's around one of MLflow's."""
    with tracer.start_as_current_span("query"), mlflow.start_span("answer") as span:
        span.set_inputs(body)
    return {"answer": body["question"]}


def fastapi() -> Any:
    """Return the app for uvicorn."""
    from fastapi import FastAPI
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    from mlflow_middleware.fastapi import TraceMiddleware

    app = FastAPI()

    @app.get("/health")
    def health() -> None: ...

    @app.post("/chats/{chat_id}")
    def chat(chat_id: str, body: dict[str, str]) -> dict[str, str]:
        return work(body)

    if os.environ.get("APP_ORDER") == "native":  # FastAPI's own telemetry, which is outside all middleware
        app.add_middleware(TraceMiddleware)
    elif IS_OUTSIDE:
        app.add_middleware(TraceMiddleware)
        FastAPIInstrumentor.instrument_app(app, excluded_urls="health")
    else:
        app.add_middleware(OpenTelemetryMiddleware, excluded_urls="health")
        app.add_middleware(TraceMiddleware)
    _late()
    return app


def flask() -> Any:
    """Return the app for gunicorn."""
    from flask import Flask, request

    from mlflow_middleware.flask import MLflowMiddleware

    app = Flask(__name__)
    app.add_url_rule("/health", view_func=dict[str, str], endpoint="health")
    app.add_url_rule(
        "/chats/<chat_id>", view_func=lambda chat_id: work(request.get_json()), methods=["POST"], endpoint="chat"
    )
    if IS_OUTSIDE:
        MLflowMiddleware(app)
        app.wsgi_app = WsgiOpenTelemetryMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    else:
        app.wsgi_app = WsgiOpenTelemetryMiddleware(app.wsgi_app)  # type: ignore[method-assign]
        MLflowMiddleware(app)
    _late()
    return app


def _late() -> None:
    if os.environ.get("APP_SET_UP") == "last":
        set_up()
