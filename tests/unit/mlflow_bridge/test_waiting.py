"""What waits for delivery of a request: counted as large as it is, readable at any time, gone when it is not kept."""

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
    """What waits after one request, and what a task got that it has begun and that runs after it."""
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
"""What a task may ask for that goes on after its request."""


@pytest.mark.parametrize("late", LATE)
def test_a_request_that_is_not_kept_can_be_asked_for_later(late: Callable[[], object]) -> None:
    """A task that goes on after it gets no error, and nothing comes of what it says."""
    before = dict(guard.failures)

    assert asked(late=late, sample_ratio=0) == ([], [None])
    assert guard.failures == before


@pytest.mark.parametrize("late", LATE)
def test_a_request_that_waits_can_be_asked_for(late: Callable[[], object]) -> None:
    """A task that goes on after it takes nothing from what is sent."""
    (waiting,), _ = asked(late=late)

    encoded = EncodedTrace.encode(waiting)
    info = json.loads(encoded.info)["trace"]["trace_info"]
    assert (info["tags"]["mlflow.trace.session"], info["tags"]["http.status_code"]) == ("s-1", "200")
    assert info["response_preview"] == "ok"
    assert b"session.id" in encoded.otlp


@pytest.mark.parametrize("headers", [[(b"x-large", b"x" * 60_000)], [(b"x" * 60_000, b"1")]])
def test_large_headers_count(headers: list[tuple[bytes, bytes]]) -> None:
    """They are held until the trace is read, so they take their room in the queue."""
    (waiting,), _ = asked(*headers)

    assert 60_000 < waiting.size < 70_000


def test_a_large_path_counts() -> None:
    """The same."""
    (waiting,), _ = asked(path="/" + "x" * 60_000)

    assert 60_000 < waiting.size < 70_000


@pytest.mark.parametrize("value", [["x"], {"b": 1}, 1, None, b"x"])
def test_context_tags_of_any_type_are_stored_as_text(value: object) -> None:
    """As MLflow does it."""
    with mlflow.tracing.context(tags={"odd": value}):
        (waiting,), _ = asked()

    info = json.loads(EncodedTrace.encode(waiting).info)["trace"]["trace_info"]
    assert (info["tags"]["odd"], info["tags"]["mlflow.traceName"]) == (str(value), "GET")
