"""A request's pending trace: counted with its size, readable at any time, released if it is not kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import mlflow
import pytest
from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, Scope

from mlflow_middleware import delivery
from mlflow_middleware._internal import guard
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.mlflow_bridge.pending import PendingTrace
from mlflow_middleware.request_trace import annotate
from mlflow_middleware.settings import Settings
from tests import messages

HEADERS = [(b"host", b"example"), (b"x-session-id", b"s-1")]


def asked(
    *headers: tuple[bytes, bytes], path: str = "/", late: Callable[[], object] | None = None, **options: object
) -> tuple[list[PendingTrace], list[object]]:
    """The pending traces after one request, and the results of a task that it started and that outlives it."""
    waiting: list[PendingTrace] = []
    tasks: list[asyncio.Task[object]] = []
    answered = asyncio.Event()

    async def afterwards() -> object:
        await answered.wait()
        return late() if late else None

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        tasks.append(asyncio.create_task(afterwards()))
        await send(messages.start())
        await send(messages.body(b"ok"))

    async def receive() -> ASGIReceiveEvent:
        return messages.request()

    async def send(message: ASGISendEvent) -> None:
        pass

    async def main() -> list[object]:
        scope = messages.http(path, *HEADERS, *headers)
        await TraceMiddleware(app, settings=Settings.load(**options))(scope, receive, send)
        answered.set()
        return list(await asyncio.gather(*tasks))

    with delivery.capturing(waiting.append):
        results = asyncio.run(main())
    return waiting, results


LATE = [
    mlflow.get_current_active_span,
    lambda: mlflow.update_current_trace(tags={"a": "b"}),
    lambda: annotate(tags={"a": "b"}),
]
"""Calls of a task that outlives its request."""


@pytest.mark.parametrize("late", LATE)
def test_a_request_that_is_not_kept_can_be_read_later(late: Callable[[], object]) -> None:
    """A task that outlives it gets no error, and its annotations have no effect."""
    before = dict(guard.failures)

    assert asked(late=late, sample_ratio=0) == ([], [None])
    assert guard.failures == before


@pytest.mark.parametrize("late", LATE)
def test_a_pending_request_can_be_read(late: Callable[[], object]) -> None:
    """A task that outlives it removes nothing from the encoded trace."""
    (waiting,), _ = asked(late=late)

    encoded = EncodedTrace.encode(waiting)
    info = json.loads(encoded.info)["trace"]["trace_info"]
    assert (info["tags"]["mlflow.trace.session"], info["tags"]["http.status_code"]) == ("s-1", "200")
    assert info["response_preview"] == "ok"
    assert b"session.id" in encoded.otlp


@pytest.mark.parametrize("headers", [[(b"x-large", b"x" * 60_000)], [(b"x" * 60_000, b"1")]])
def test_large_headers_count(headers: list[tuple[bytes, bytes]]) -> None:
    """They are kept until the trace is encoded, so they take their room in the queue."""
    (waiting,), _ = asked(*headers)

    assert 60_000 < waiting.size < 70_000


def test_a_large_path_counts() -> None:
    """It is kept likewise."""
    (waiting,), _ = asked(path="/" + "x" * 60_000)

    assert 60_000 < waiting.size < 70_000


@pytest.mark.parametrize("value", [["x"], {"b": 1}, 1, None, b"x"])
def test_context_tags_of_any_type_are_stored_as_text(value: object) -> None:
    """Like in MLflow."""
    with mlflow.tracing.context(tags={"odd": value}):
        (waiting,), _ = asked()

    info = json.loads(EncodedTrace.encode(waiting).info)["trace"]["trace_info"]
    assert (info["tags"]["odd"], info["tags"]["mlflow.traceName"]) == (str(value), "GET")
