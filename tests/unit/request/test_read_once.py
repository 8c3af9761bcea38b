"""Values that a protocol allows to be read only once are passed on whole, and traced all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from mlflow_middleware import asgi, wsgi
from mlflow_middleware._internal import guard
from mlflow_middleware.testing import captured_traces
from tests.messages import body, http, request
from tests.unit.serving import Serving


class OneShot:
    """An iterable that is no iterator, and can be read once."""

    def __init__(self, values: Iterable[Any]) -> None:
        self._values = iter(values)

    def __iter__(self) -> Iterator[Any]:
        return self._values


KINDS: list[Callable[[Iterable[Any]], Any]] = [list, tuple, iter, OneShot, lambda values: (each for each in values)]
"""Kinds of iterables that ASGI allows."""

kinds = st.sampled_from(KINDS)
names = st.sampled_from([b"x-session-id", b"X-User-Id", b"x-request-id", b"x-other", b"origin", b"content-length"])
values = st.sampled_from([b"1", b"s-1", b"\xe9", b""])


@st.composite
def iterables(draw: st.DrawFn, items: list[Any]) -> Any:
    """Return these items as such an iterable."""
    return draw(kinds)(items)


def read(value: Any) -> Any:
    """Read an iterable once; return all of it."""
    if value is None or isinstance(value, str | bytes | int):
        return value
    return [read(each) for each in value]


def served(app: asgi.ASGIApp, scope: Any) -> list[Any]:
    """Return the messages that a server gets."""

    async def serve() -> list[Any]:
        return await Serving(app, scope, request()).end()  # older asgiref begins at once, in the running loop

    return asyncio.run(serve())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=300), st.data())
def test_an_asgi_app_sees_the_whole_scope(headers: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """Headers, each of them, the addresses and the subprotocols, in any kind of iterable."""
    pairs = [data.draw(iterables(list(pair))) if number < 9 else pair for number, pair in enumerate(headers)]
    scope: dict[str, Any] = {**http(), "headers": data.draw(iterables(pairs))}
    for key in ("server", "client"):
        scope[key] = data.draw(st.none() | iterables(["192.0.2.7", 80]))
    expected = [read(headers), scope["server"] and ["192.0.2.7", 80], scope["client"] and ["192.0.2.7", 80]]
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(read(scope[key]) for key in ("headers", "server", "client"))
        await send({"type": "http.response.start", "status": 200})
        await send(body(b"ok"))

    failed = guard.failures.copy()
    with captured_traces() as traces:
        served(asgi.TraceMiddleware(app), scope)

    assert seen == expected
    assert [trace.data.spans[0].attributes.get("server.address") for trace in traces] == (
        ["192.0.2.7"] if expected[1] else [None]
    )
    assert guard.failures == failed


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=9), st.data())
def test_a_websocket_app_sees_the_whole_scope(headers: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """As with requests; its offered subprotocols, too."""
    pairs = [data.draw(iterables(list(pair))) for pair in headers]
    scope: dict[str, Any] = {**http(), "type": "websocket", "headers": data.draw(iterables(pairs))}
    scope["subprotocols"] = data.draw(iterables(["a", "b"]))
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([read(scope["headers"]), read(scope["subprotocols"])])

    served(asgi.TraceMiddleware(app), scope)

    assert seen == [read(headers), ["a", "b"]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=9), st.booleans(), st.booleans(), st.data())
def test_a_server_gets_all_headers_of_an_answer(
    headers: list[tuple[bytes, bytes]], crosses_origins: bool, is_held: bool, data: st.DataObject
) -> None:
    """Ours come after them; the trace has the answer's type."""
    headers = [*headers, (b"content-type", b"application/json")]
    pairs = [data.draw(iterables(list(pair))) for pair in headers]
    message = {"type": "http.response.start", "status": 200, "headers": data.draw(iterables(pairs))}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(message)
        await send(body(b'{"a": 1}'))

    with captured_traces() as traces:
        asking = [(b"origin", b"http://elsewhere")] if crosses_origins else []
        sent = served(asgi.TraceMiddleware(app, flush_each_request=is_held), http("/", *asking))

    assert read(sent[0]["headers"])[: len(headers)] == read(headers)
    assert traces[0].data.spans[0].outputs == {"a": 1}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=9), st.data())
def test_a_wsgi_server_gets_all_headers_of_an_answer(headers: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """The standard requires a list; servers accept other iterables."""
    texts = [(name.decode(), value.decode("latin-1")) for name, value in headers if name != b"content-length"]
    pairs = [data.draw(iterables(list(pair))) for pair in texts]
    given_headers = data.draw(iterables(pairs))
    content = data.draw(iterables([b"a", b"b"]))
    got: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", given_headers)
        return content

    def start(status: str, headers: Any, exc_info: object = None) -> Callable[[bytes], object]:
        got.extend(read(headers))
        return lambda chunk: None

    with captured_traces() as traces:
        answer = b"".join(wsgi.TraceMiddleware(app)(EnvironBuilder().get_environ(), start))

    assert (got[: len(texts)], answer) == (read(texts), b"ab")
    assert traces[0].data.spans[0].outputs == "ab"


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("address", [None, iter(["192.0.2.7", 80])])
def test_a_scope_without_headers(kind: str, address: Any) -> None:
    """As some tests and bridges build it: it stays like that, and is traced."""
    scope: dict[str, Any] = {**http("/"), "type": kind, "client": address}
    del scope["headers"]
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("headers" in scope)
        with mlflow.start_span("inside"):
            pass

    failed = guard.failures.copy()
    with captured_traces() as traces:
        served(asgi.TraceMiddleware(app), scope)

    assert (seen, len(traces), guard.failures) == ([False], 1, failed)
