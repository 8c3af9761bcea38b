"""An ASGI app's response, as it passes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_middleware import delivery
from mlflow_middleware.guard import guarded
from mlflow_middleware.request.headers import join
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.request.waiting import in_thread

if TYPE_CHECKING:
    from asgiref.typing import ASGISendCallable, ASGISendEvent, HTTPResponseStartEvent


deliver = guarded(delivery.deliver)


def observed(send: ASGISendCallable, trace: RequestTrace, answered: Callable[[], None]) -> ASGISendCallable:
    """An app's ``send``, of which the trace learns what passes.

    Args:
        send: The server's.
        trace: The request's trace.
        answered: Called when the client has all of the answer.
    """
    has_trailers = False

    async def watched(message: ASGISendEvent) -> None:
        nonlocal has_trailers
        kind = message["type"]
        if message["type"] == "http.response.start":
            has_trailers = bool(message.get("trailers"))
            headers = list(message.get("headers") or ())  # it may be an iterator; the app's own stays as it is
            _start(message, headers, trace)
            message = {**message, "headers": headers}
        is_last = kind in _ENDING[has_trailers] and not message.get(_ENDING[has_trailers][kind], False)
        is_held = is_last and trace.holds_its_answer
        if is_last:
            trace.last_byte()  # before it is sent: afterwards the client may go, and that is nobody's loss
        if is_held:
            trace.sent(message.get("body", b""))  # type: ignore[arg-type]
            answered()
            await in_thread(deliver)
        try:
            await send(message)
        except OSError:
            trace.disconnected(certainly=True)
            raise
        if is_held:
            return
        if message["type"] == "http.response.body":
            trace.sent(message.get("body", b""))
        if is_last:
            trace.last_byte()
            answered()

    return watched


_ENDING = {
    False: {
        "http.response.body": "more_body",
        "http.response.pathsend": "",
        "http.response.zerocopysend": "more_body",
    },
    True: {"http.response.trailers": "more_trailers"},
}
"""What can end a response, without trailers and with them, and where it says that more is to come:
https://asgi.readthedocs.io/en/latest/extensions.html"""


@guarded
def _start(message: HTTPResponseStartEvent, headers: list[tuple[bytes, bytes]], trace: RequestTrace) -> None:
    """The response starts: our headers join those that it has."""
    present = {name.lower(): value for name, value in headers}
    kind, encoding = present.get(b"content-type", b""), present.get(b"content-encoding", b"")
    trace.response_started(message["status"], kind.decode("latin-1"), encoding.decode("latin-1"))
    ours = trace.response_headers() or ()
    if "origin" not in trace.exchange.headers:  # nothing to expose
        headers += [(key, value.encode()) for name, value in ours if (key := _raw_name(name)) not in present]
        return
    known = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    join(known, ours, cross_origin=True)
    new = [(_raw_name(name), value.encode("latin-1")) for name, value in known[len(headers) :]]
    old = [(name, value.encode("latin-1")) for (name, _), (_, value) in zip(headers, known, strict=False)]
    headers[:] = [*old, *new]


@functools.lru_cache(maxsize=64)
def _raw_name(name: str) -> bytes:
    """ASGI's names are lower-case."""
    return name.lower().encode("latin-1")
