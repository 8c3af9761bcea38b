"""A plain app with a tracer provider of its own that MLflow shares, and a server span around our middleware."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import mlflow
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from mlflow_middleware.asgi import TraceMiddleware
from tests.apps import two_services


class ToFile(SpanExporter):
    """An exporter of the app's own."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with Path(os.environ["APP_EXPORTED"]).open("a") as file:
            for span in spans:
                ids = [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
                parent = f"{span.parent.span_id:016x}" if span.parent else None
                file.write(json.dumps([*ids, parent, span.name]) + "\n")
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ToFile()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("the app")


async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] != "http":
        await two_services._other(scope, receive, send)
        return
    await receive()
    with tracer.start_as_current_span("query"), mlflow.start_span("answer"):
        pass
    await two_services._send(send, 200, b'{"answer": "hello"}')


traced = TraceMiddleware(answer)


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] != "http" or scope["path"] == "/health":
        await two_services._other(scope, receive, send)
        return
    carrier = {name.decode(): value.decode() for name, value in scope["headers"]}
    with tracer.start_as_current_span("server", extract(carrier), kind=trace.SpanKind.SERVER):
        await traced(scope, receive, send)
