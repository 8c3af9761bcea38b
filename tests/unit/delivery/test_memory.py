"""Pending traces take no more memory than they count for: otherwise ``max_queue_bytes`` bounds nothing."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import mlflow
import pytest

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.request_trace import annotate
from mlflow_middleware.settings import Settings
from tests.messages import Header, body, http, request, start
from tests.unit.serving import Serving

COUNT = 60
ALLOWED = 1.3

HEADERS: dict[str, Callable[[int], list[Header]]] = {
    "distinct": lambda number: [(b"x-%d-%d" % (number, index), b"%d" % index) for index in range(1_000)],
    "the-same": lambda number: [(b"x-%d" % number, b"%d" % index) for index in range(1_000)],
    "not-ascii": lambda number: [(b"x-%d-%d" % (number, index), b"\xe9" * 200) for index in range(200)],
    "large": lambda number: [(b"x-%d" % number, b"%d" % number * 20_000)],
}
"""The headers of a request, by kind."""


def in_pieces(number: int) -> list[bytes]:
    return [b"%d" % (number % 10)] * 1_000


def with_children(number: int) -> list[bytes]:
    for index in range(5):
        with mlflow.start_span(f"child {number} {index}") as span:
            span.set_inputs({"question": "word " * 10})
    return []


def with_tags(number: int) -> list[bytes]:
    annotate(tags={f"tag-{number}-{index}": f"{number} {index}" for index in range(100)})
    return []


def with_an_error(number: int) -> list[bytes]:
    with pytest.raises(ValueError, match="message"), mlflow.start_span("failing"):
        raise ValueError("message " * 1_000 + str(number))
    return []


APPS: dict[str, Callable[[int], list[bytes]]] = {
    "in-pieces": in_pieces,
    "large": lambda number: [b"%d" % number * 60_000],
    "with-children": with_children,
    "with-tags": with_tags,
    "with-an-error": with_an_error,
}
"""Answers of an app, and its other calls."""

SETTINGS = Settings()


async def serve(number: int, headers: list[Header], answer: Callable[[int], list[bytes]], query: bytes = b"") -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start(200, (b"content-type", b"text/plain")))
        for piece in answer(number):
            await send(body(bytes(bytearray(piece)), more=True))
        await send(body())

    scope = http(f"/chats/{number}", *headers, method="POST", query=query)
    await Serving(TraceMiddleware(app, settings=SETTINGS), scope, request(b"%d" % number)).end()


async def assert_counted(each: Callable[[int], Any]) -> None:
    """Make traces, and compare their memory with their counted size; then the same once they are encoded."""
    pending: list[Any] = []
    with delivery.capturing(pending.append):
        for number in range(10):  # caches
            await each(number)
        pending.clear()
        gc.collect()
        tracemalloc.start()
        try:
            for number in range(10, 10 + COUNT):
                await each(number)
            gc.collect()
            took = tracemalloc.get_traced_memory()[0]
            counted = sum(trace.size for trace in pending)
            assert took <= ALLOWED * counted
            before = tracemalloc.get_traced_memory()[0]
            encoded = [EncodedTrace.encode(pending.pop()) for _ in range(COUNT)]
            gc.collect()
            took = tracemalloc.get_traced_memory()[0] - before + took
            assert took <= ALLOWED * sum(trace.size for trace in encoded) + 500_000  # caches
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", HEADERS)
async def test_headers_count_with_their_memory(kind: str) -> None:
    """Also short ones, whose objects are larger than their texts."""
    await assert_counted(lambda number: serve(number, HEADERS[kind](number), lambda number: []))


def remembers_spans() -> bool:
    """Whether the installed MLflow keeps the last 128 spans alive whose attributes it has read."""
    registry: Any = getattr(mlflow.entities.span, "_CachedSpanAttributesRegistry", None)
    return hasattr(getattr(registry, "get", None), "cache_info")


FORGETTING = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            kind == "with-an-error" and remembers_spans(),
            reason="this MLflow keeps the last 128 spans it has read",
        ),
    )
    for kind in APPS
]


@pytest.mark.parametrize("kind", FORGETTING)
async def test_the_apps_calls_count_with_their_memory(kind: str) -> None:
    """Bodies in any pieces, the app's own spans and tags."""
    await assert_counted(lambda number: serve(number, [], APPS[kind]))


async def test_a_query_string_counts_with_its_memory() -> None:
    """However long."""
    await assert_counted(lambda number: serve(number, [], lambda number: [], b"a=%d&" % number * 2_000))
