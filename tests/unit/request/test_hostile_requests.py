"""Hostile requests: the kept part is bounded in count and in bytes, whatever the server passes on."""

from __future__ import annotations

import gc
import gzip
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from mlflow.entities import Trace

from mlflow_middleware import asgi, wsgi
from mlflow_middleware.capture import MAX_ATTRIBUTE
from mlflow_middleware.capture.garbage import few_collections
from mlflow_middleware.capture.model_calls import KEYS
from mlflow_middleware.exchange import MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET, Exchange
from mlflow_middleware.request_trace import RequestTrace
from mlflow_middleware.settings import Settings
from tests.hostile.requests import BRACKETS, HEADERS, TYPES, Counted
from tests.messages import body, http, request, start
from tests.unit.encoded import sent_traces
from tests.unit.serving import Serving, root_of


def environ_of(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return headers as a WSGI server passes them on: repeated ones joined."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        values.setdefault(key, []).append(value.decode("latin-1"))
    joined = {key: ",".join(each) for key, each in values.items()}
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO(), **joined}


def assert_bounded(exchange: Exchange) -> None:
    """Check that a request's kept headers count with their memory."""
    size = sum(map(len, exchange.headers)) + sum(map(len, exchange.headers.values()))
    assert len(exchange.headers) <= MAX_HEADERS
    assert size <= MAX_HEADER_BYTES
    assert exchange.held >= size


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_an_asgi_request_are_bounded(kind: str) -> None:
    """Only the first ones are read: the event loop is not blocked."""
    headers = Counted(HEADERS[kind])

    assert_bounded(asgi.exchange_of({**http(), "headers": headers}))
    assert headers.taken <= MAX_HEADERS + 1


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_a_wsgi_request_are_bounded(kind: str) -> None:
    """The limits are the same as with ASGI."""
    assert_bounded(wsgi.exchange_of(environ_of(HEADERS[kind])))


def test_a_header_that_is_too_large_hides_no_other() -> None:
    """It alone is left out: the user is known all the same."""
    headers = [(b"x-large", b"a" * 100_000), (b"x-session-id", b"s-1"), (b"x-larger", b"b" * 200_000), (b"x-b", b"2")]

    assert asgi.exchange_of(http("/", *headers)).headers == {"x-session-id": "s-1", "x-b": "2"}


def test_repeated_headers_are_joined_in_their_order() -> None:
    """With a comma, whatever is between them."""
    headers = [(b"x-a", b"1"), (b"x-b", b"2"), (b"X-A", b"3"), (b"x-a", b"4")]

    assert asgi.exchange_of(http("/", *headers)).headers == {"x-a": "1,3,4", "x-b": "2"}


def test_path_and_query_string_are_bounded() -> None:
    """Servers may pass on any length."""
    scope = http("/" + "p" * 1_000_000, query=b"q=" + b"1" * 1_000_000)
    environ = {**environ_of([]), "PATH_INFO": "/" + "p" * 1_000_000, "QUERY_STRING": "q" * 1_000_000}

    for exchange in (asgi.exchange_of(scope), wsgi.exchange_of(environ)):
        assert len(exchange.path) == len(exchange.query_string) == MAX_TARGET


@pytest.mark.parametrize("kind", HEADERS)
async def test_the_app_gets_all_headers_and_its_trace_is_whole(kind: str, traces: list[Trace]) -> None:
    """Only the trace is bounded; the app reads what the server gave."""
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(len(scope["headers"]))
        await send(start(200))
        await send(body(b"ok"))

    await Serving(asgi.TraceMiddleware(app), http("/p", *HEADERS[kind]), request()).end()

    assert seen == [len(HEADERS[kind])]
    assert root_of(traces[0]).attributes["url.path"] == "/p"


async def test_a_client_address_is_bounded(traces: list[Trace]) -> None:
    """A server behind a proxy reads it from a header."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200))
        await send(body(b"ok"))

    scope: Any = {**http(), "client": ("1" * 100_000, 0)}
    await Serving(asgi.TraceMiddleware(app), scope, request()).end()

    assert len(root_of(traces[0]).attributes["client.address"]) == MAX_ATTRIBUTE


# --- bodies ---

LOOKED_AT = KEYS | {
    "messages",
    "parts",
    "requests",
    "data",
    "errors",
    "error",
    "response",
    "output",
    "input",
    "tool_calls",
}
"""Keys under which contents are found in a body."""


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """Return the generations of the garbage collections that start inside."""
    seen: list[int] = []

    def see(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.collect()
    gc.callbacks.append(see)
    yield seen
    gc.callbacks.remove(see)


SETTINGS = Settings()


def answered(body_of_request: bytes, content_type: str, *, content_encoding: str = "") -> None:
    """Send a request whose body is echoed."""
    headers = {"content-type": content_type, "content-encoding": content_encoding}
    trace = RequestTrace.open(Exchange("POST", "/echo", headers), SETTINGS)
    trace.received(body_of_request)
    trace.response_started(200, content_type, content_encoding)
    trace.sent(body_of_request)
    trace.last_byte()
    trace.finish()


@pytest.mark.parametrize("kind", BRACKETS)
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gzip"])
def test_a_burst_of_brackets_starts_no_garbage_collection(kind: str, is_packed: bool, collections: list[int]) -> None:
    """Each would block the app, as it visits all its objects; there is one now and then for ordinary requests."""
    bodies = 2
    content = gzip.compress(BRACKETS[kind]) if is_packed else BRACKETS[kind]
    with sent_traces() as sent:
        for _ in range(bodies):
            answered(content, TYPES.get(kind, "application/json"), content_encoding="gzip" if is_packed else "")
        del collections[:]

    assert len(sent) == bodies
    assert len(collections) <= 2 * bodies
    assert 2 not in collections


NESTING = {
    "arrays": ("[", "]"),
    **{f"object-{key}": (f'{{"{key}": ', "}") for key in sorted(LOOKED_AT)},
    **{f"array-{key}": (f'{{"{key}": [', "]}") for key in sorted(LOOKED_AT)},
}


@pytest.mark.parametrize("kind", NESTING)
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_nesting_costs_are_linear(kind: str, content_type: str) -> None:
    """A level costs some hundred calls, not twice as many as the one before: such a walk would never end."""
    opening, closing = NESTING[kind]
    calls = []
    for depth in (4, 4, 20):  # the first time, more is set up
        content = opening * depth + '"deep"' + closing * depth
        with counted_calls() as count, sent_traces():
            answered((f"data: {content}\n\n" if "event" in content_type else content).encode(), content_type)
        calls.append(count())
    _, few, many = calls

    assert many - few <= 16 * 500


@contextmanager
def counted_calls() -> Iterator[Callable[[], int]]:
    """Count the calls of Python's functions in this thread; yields a function that returns their number."""
    calls = 0

    def see(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(see)
    try:
        yield lambda: calls
    finally:
        sys.setprofile(None)


def test_the_apps_settings_of_garbage_collection_stay() -> None:
    """Before, after, and also if it changes them meanwhile."""
    before = gc.get_threshold()
    try:
        with few_collections():
            assert gc.get_threshold()[0] > before[0]
        assert gc.get_threshold() == before
        with few_collections():
            gc.set_threshold(5_000)
        assert gc.get_threshold()[0] == 5_000
        gc.set_threshold(0)
        with few_collections():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
