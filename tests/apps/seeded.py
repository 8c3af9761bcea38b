"""An app that seeds ``random`` before each request, as ML libraries do; then it forks, in Python and in C.

Prints one id a line, of each trace and each span; the start of each line identifies the process.

With ``own-provider``, the app itself creates OpenTelemetry's tracer provider, which MLflow then uses.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
from typing import Any

import mlflow
from opentelemetry import trace as opentelemetry
from opentelemetry.sdk.trace import TracerProvider

from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.testing import captured_traces
from tests.benchmarks.in_process import ask

REQUESTS = 10


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers, with a child span."""
    random.seed(42)
    with mlflow.start_span("child"):
        await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def show(who: str) -> None:
    """Make traces, by requests and by hand, and print their ids."""
    with captured_traces() as traces:
        for _ in range(REQUESTS):
            random.seed(42)
            ask(traced, 1)
            random.seed(42)
            with mlflow.start_span("by hand"):
                pass
    for trace in traces:
        for name in (trace.info.trace_id, *[span.span_id for span in trace.data.spans]):
            print(who, name, flush=True)


if "own-provider" in sys.argv:
    opentelemetry.set_tracer_provider(TracerProvider())
    opentelemetry.get_tracer("mlflow_middleware")
traced = TraceMiddleware(app)
show("parent")
if (pid := os.fork()) == 0:
    show("child")
    os._exit(0)
os.waitpid(pid, 0)
if (pid := ctypes.CDLL(None).fork()) == 0:
    show("child in C")
    os._exit(0)
os.waitpid(pid, 0)
show("parent again")
