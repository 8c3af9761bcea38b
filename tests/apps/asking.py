"""Requests whose handlers get their trace from MLflow, each in another way, and one whose handler does not.

python -m tests.apps.asking EXPERIMENT
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import mlflow
from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, HTTPScope
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.trace import Span

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request_trace import annotate, current
from tests import messages
from tests.apps.known import identity, takes

QUESTION = {"messages": [{"role": "user", "content": "Où est-il?"}], "api_key": "k", "deep": [[{"n": [1, 2.5, None]}]]}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Là-bas. 🙂"}}], "usage": None, "ok": True}
USED = {**ANSWER, "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}


def trace_id() -> str:
    trace = current()
    return str(trace and trace.trace_id)


def span() -> Any:
    found = mlflow.get_current_active_span()
    assert found is not None
    return found


def otel_span() -> Span:
    from mlflow.tracing.provider import get_current_otel_span

    found = get_current_otel_span()
    assert isinstance(found, Span)
    return found


def in_threads() -> None:
    """Open children in several threads at the same time."""
    barrier = threading.Barrier(8)

    def child(number: int) -> None:
        barrier.wait()
        with mlflow.start_span(f"child {number}"):
            pass

    contexts = [contextvars.copy_context() for _ in range(8)]
    threads = [threading.Thread(target=each.run, args=(child, number)) for number, each in enumerate(contexts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def child() -> None:
    with mlflow.start_span("child"):
        pass


def failing() -> None:
    raise ValueError("no")


WAYS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "active span": span,
    "attribute": lambda: span().set_attribute("asked", "yes"),
    "update": lambda: mlflow.update_current_trace(
        tags={"asked": "yes"}, request_preview="mine", **identity(session_id="s-9")
    ),
    "state": lambda: mlflow.update_current_trace(state="ERROR"),
    "trace by its id": lambda: InMemoryTraceManager.get_instance().get_root_span_id(trace_id()),
    "tag by its id": lambda: mlflow.set_trace_tag(trace_id(), "asked", "yes"),
    "inputs": lambda: span().set_inputs({"mine": 1}),
    "opentelemetry": lambda: otel_span().set_attribute("asked", json.dumps("yes")),
    "child": child,
    "threads": in_threads,
    "annotated": lambda: annotate(tags={"asked": "yes"}),
    "annotated over": lambda: annotate(tags={"tier": "mine"}),
    "failing": failing,
    "used": lambda: None,
}

if takes(mlflow.trace, "sampling_ratio_override"):
    WAYS["child with a ratio"] = mlflow.trace(child, name="around", sampling_ratio_override=0.0)

AFTERWARDS: dict[str, Callable[[], object]] = {
    "nothing afterwards": lambda: None,
    "active span afterwards": span,
    "child afterwards": child,
    "annotated afterwards": lambda: annotate(tags={"asked": "yes"}),
    "failing afterwards": failing,
}
"""Handlers that do the same after the request was answered and its trace delivered."""


async def app(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    way = scope["path"][1:]
    await receive()
    WAYS.get(way, WAYS["nothing"])()
    await send(messages.start(500 if way == "state" else 200, (b"content-type", b"application/json")))
    await send(messages.body(json.dumps(USED if way == "used" else ANSWER).encode()))
    if way in AFTERWARDS:
        assert await asyncio.to_thread(delivery.flush, 60)
        AFTERWARDS[way]()


async def ask(traced: TraceMiddleware, way: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"host", b"example"), (b"x-session-id", b"s-1")]
    own = (b"x-request-id", way.replace(" ", "-").encode())
    scope = messages.http(f"/{way}", *headers, own, method="POST", query=b"a=1&token=t")

    async def receive() -> ASGIReceiveEvent:
        return messages.request(json.dumps(QUESTION).encode())

    async def send(message: ASGISendEvent) -> None:
        pass

    try:
        await traced(scope, receive, send)
    except ValueError:
        assert way.startswith("failing")


async def main(experiment: str) -> None:
    os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment
    traced = TraceMiddleware(app, tags={"plan": "pro", "tier": "gold"})
    for way in (*WAYS, *AFTERWARDS):
        await ask(traced, way)
        assert mlflow.get_current_active_span() is None, way
    assert delivery.flush(60), delivery.stats()
    manager = InMemoryTraceManager.get_instance()
    assert not manager._traces
    assert not manager._otel_id_to_mlflow_trace_id


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
