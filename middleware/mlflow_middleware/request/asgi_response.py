"""Observation of an ASGI app's response as it is sent."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from mlflow_middleware import delivery
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.request import http_errors, leaving, request_ids
from mlflow_middleware.request.headers import join
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.request.rereadable import rereadable
from mlflow_middleware.request.waiting import in_thread

if TYPE_CHECKING:
    from asgiref.typing import ASGISendCallable, ASGISendEvent, HTTPResponseStartEvent, HTTPResponseTrailersEvent


deliver = guarded(delivery.deliver)


def observed(
    send: ASGISendCallable,
    trace: RequestTrace,
    answered: Callable[[], None],
    detect_disconnect: Callable[[], Awaitable[None]],
    *,
    is_held: bool,
) -> ASGISendCallable:
    """Wrap the server's ``send`` so that the trace records the response.

    Args:
        send: The server's ``send``.
        trace: The request's trace.
        answered: Called when the whole response has been sent.
        detect_disconnect: Called before the end of a response that took long, to detect a disconnected client.
        is_held: Whether the end of the response waits for the delivery of its trace.
    """
    ending = _ENDING
    head: dict[str, Any] = {}
    own_headers: list[tuple[bytes, bytes]] | None = None
    held = HeldAnswer(send, trace, answered) if is_held else None

    async def watched(message: Any) -> None:
        nonlocal ending, head, own_headers
        kind = message["type"]
        if kind == "http.response.start":
            ending = _ENDING_WITH_TRAILERS if message.get("trailers") else _ENDING
            headers = list(map(tuple, message.get("headers") or ()))  # may be iterators; the app keeps its own list
            _start(message, headers, trace)
            head = message = {**message, "headers": headers}
            own_headers = headers[:]
        elif kind == "http.response.trailers" and ending is _ENDING_WITH_TRAILERS:
            message = _trailers(message, trace)
        is_last = kind in ending and not message.get(ending[kind], False)
        # before it is sent: a client that disconnects after the last byte has missed nothing
        if is_last and trace.last_byte() > leaving.ASK_AFTER:
            await detect_disconnect()
        try:
            await (held.send(message, is_last) if held else send(message))
        except OSError:
            trace.disconnected(certainly=True)
            raise
        if held:
            return
        if kind == "http.response.body":
            trace.sent(message.get("body", b""))
        if is_last:
            trace.last_byte()
            if head.get("headers") != own_headers:  # changed by a middleware around this one
                request_ids.learn(trace, head["headers"])
            answered()

    return watched


def _trailers(message: HTTPResponseTrailersEvent, trace: RequestTrace) -> HTTPResponseTrailersEvent:
    """Record a response's trailers; return the same message, unless its headers can be read only once."""
    given: Any = message.get("headers") or ()
    headers: Any = rereadable(given)
    _note_headers(headers, trace)
    return message if headers is given else {**message, "headers": headers}


_ENDING = {"http.response.body": "more_body", "http.response.pathsend": "", "http.response.zerocopysend": "more_body"}
_ENDING_WITH_TRAILERS = {"http.response.trailers": "more_trailers"}
"""Message types that can end a response, without and with trailers -> the key that announces more messages; see
https://asgi.readthedocs.io/en/latest/extensions.html."""


class HeldAnswer:
    """A response whose end waits for the delivery of its trace, since the process may be frozen after it.

    For the client, the end is the last byte of the announced length; for a response without a body, its head.

    Args:
        send: The server's ``send``.
        trace: The request's trace.
        answered: Called when the whole response is known.
    """

    def __init__(self, send: ASGISendCallable, trace: RequestTrace, answered: Callable[[], None]) -> None:
        self._send = send
        self._trace = trace
        self._answered = answered
        self._head: ASGISendEvent | None = None
        self._left: int | None = None
        self._is_delivered = False

    async def send(self, message: ASGISendEvent, is_last: bool) -> None:
        """Send a message; if it ends the response, deliver the trace first."""
        if message["type"] == "http.response.start":
            self._left = _announced(message, self._trace.exchange.method)
            if self._left == 0:
                self._head = message
                return
        elif message["type"] == "http.response.body":
            chunk = message.get("body", b"")
            self._trace.sent(chunk)
            self._left = self._left and self._left - len(chunk)  # 0 from the start for HEAD
        if (is_last or self._left == 0) and not self._is_delivered:
            self._is_delivered = True
            self._trace.last_byte()
            self._answered()
            await in_thread(deliver)
        if self._head is not None:
            head, self._head = self._head, None
            await self._send(head)
        await self._send(message)


def _announced(message: HTTPResponseStartEvent, method: str) -> int | None:
    """Return the announced length of a response's body; None if there is none."""
    if method == "HEAD" or message["status"] in (204, 304):
        return 0
    lengths = [value for name, value in message["headers"] if name.lower() == b"content-length" and value.isdigit()]
    return int(lengths[0]) if lengths else None


@guarded
def _start(message: HTTPResponseStartEvent, headers: list[tuple[bytes, bytes]], trace: RequestTrace) -> None:
    """Record the start of a response, and add our headers to its own."""
    settings = trace.record.settings
    present = {name.lower(): value for name, value in headers}
    kind, encoding = present.get(b"content-type", b""), present.get(b"content-encoding", b"")
    trace.response_started(message["status"], kind.decode("latin-1"), encoding.decode("latin-1"))
    if settings.error_when:
        _note_headers(headers, trace)
    if not settings.raw_request_id_headers.isdisjoint(present):
        request_ids.learn(trace, headers)
    if message["status"] >= 400 or trace.record.held:
        http_errors.answered(trace, message["status"])
    ours = trace.response_headers() or ()
    if "origin" not in trace.exchange.headers:  # nothing to expose
        headers += [(key, value.encode()) for name, value in ours if (key := _raw_name(name)) not in present]
        return
    known = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    join(known, ours, cross_origin=True)
    new = [(_raw_name(name), value.encode("latin-1")) for name, value in known[len(headers) :]]
    old = [(name, value.encode("latin-1")) for (name, _), (_, value) in zip(headers, known, strict=False)]
    headers[:] = [*old, *new]


@guarded
def _note_headers(headers: Iterable[tuple[bytes, bytes]], trace: RequestTrace) -> None:
    """Record headers or trailers for ``error_when``."""
    known = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
    trace.exchange.response_headers = {**trace.exchange.response_headers, **known}


@functools.lru_cache(maxsize=64)
def _raw_name(name: str) -> bytes:
    """Return a header's name as ASGI requires it: lower-case bytes."""
    return name.lower().encode("latin-1")
