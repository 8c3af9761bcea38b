"""An app for each other tracing tool, started as its users do; ``APP_FRAMEWORK`` is the framework."""

from __future__ import annotations

import os
from typing import Any

FRAMEWORK = os.environ.get("APP_FRAMEWORK", "fastapi")


def _app() -> Any:
    return {"fastapi": _fastapi, "flask": _flask, "asgi": _fastapi}[FRAMEWORK]()


def _fastapi() -> Any:
    from fastapi import FastAPI

    from mlflow_middleware.fastapi import TraceMiddleware

    app = FastAPI()

    @app.get("/health")
    def health() -> None: ...

    @app.get("/chats/{chat_id}")
    async def chat(chat_id: str) -> dict[str, str]:
        return {"answer": chat_id}

    @app.get("/fail")
    def fail() -> None:
        raise RuntimeError("on purpose")

    app.add_middleware(TraceMiddleware)
    return app


def _flask() -> Any:
    from flask import Flask

    from mlflow_middleware.flask import MLflowMiddleware

    app = Flask(__name__)
    app.add_url_rule("/health", "health", dict[str, str])
    app.add_url_rule("/chats/<chat_id>", "chat", lambda chat_id: {"answer": chat_id})
    app.add_url_rule("/fail", "fail", lambda: str(1 // 0))
    MLflowMiddleware(app)
    return app


def sentry() -> Any:
    """Start Sentry with its default integrations."""
    import sentry_sdk

    sentry_sdk.init(dsn=os.environ["APP_DSN"], traces_sample_rate=float(os.environ.get("APP_RATE", "1")))
    return _app()


def datadog() -> Any:
    """Start Datadog's tracer, like ``ddtrace-run`` or ``ddtrace.auto``."""
    import ddtrace.auto  # noqa: F401

    return _app()


def logfire() -> Any:
    """Start Logfire, which sends to an OTLP collector only."""
    import logfire as tool

    tool.configure(send_to_logfire=False, service_name="the app", console=False)
    app = _app()
    (tool.instrument_flask if FRAMEWORK == "flask" else tool.instrument_fastapi)(app)
    return app


def opentelemetry() -> Any:
    """Start OpenTelemetry's SDK and instrumentation, outside our middleware (FastAPI) or inside it (Flask)."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    from tests.tools.otel_apps import tracer

    assert tracer
    app = _app()
    if FRAMEWORK == "flask":
        FlaskInstrumentor().instrument_app(app)
    else:
        FastAPIInstrumentor.instrument_app(app)
    return app
