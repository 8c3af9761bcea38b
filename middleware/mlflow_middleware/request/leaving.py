"""Detection of clients that disconnect before the response.

Most servers let an app send to a disconnected client and report the disconnect only to a call of ``receive``. So this
module calls it once before the end of a slow response; for a fast one, a disconnect is unlikely.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mlflow_middleware.request.lifecycle import RequestTrace

if TYPE_CHECKING:
    from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent

ASK_AFTER = 100_000_000
"""Duration of a request, in nanoseconds, from which on a disconnect is checked."""

_AHEAD = 2
"""Maximum number of messages that are read ahead: the one of an empty body, and the disconnect."""


def is_cancelled() -> bool:
    """Return whether the current task has been cancelled although it produced a response.

    A view in a thread cannot be interrupted. Python 3.10 does not report the cancellation.
    """
    task = asyncio.current_task()
    return bool(task and getattr(task, "cancelling", int)())


class Received:
    """A request's messages as the app reads them; nothing is read on the app's behalf.

    Args:
        receive: The server's ``receive``.
        trace: The request's trace.
    """

    _ahead: tuple[ASGIReceiveEvent, ...] = ()
    _is_asking = _is_read = False

    def __init__(self, receive: ASGIReceiveCallable, trace: RequestTrace) -> None:
        self._receive = receive
        self._trace = trace

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message."""
        if self._ahead:
            message, *rest = self._ahead
            self._ahead = tuple(rest)
        else:
            self._is_asking = True  # an app that is cancelled here mostly does not ask again
            message = await self._receive()
            self._is_asking = False
        if message["type"] == "http.request":
            self._trace.received(message.get("body", b""))
            self._is_read = not message.get("more_body", False)
        elif message["type"] == "http.disconnect":
            self._trace.disconnected()
        return message

    async def detect_disconnect(self) -> None:
        """Ask the server whether the client has disconnected, if no message can be lost to the app."""
        record = self._trace.record
        if not record.start_time or record.client_disconnected:
            return
        headers = record.exchange.headers
        has_more = not self._is_read and (headers.get("content-length", "0") != "0" or "transfer-encoding" in headers)
        if has_more or self._is_asking or "expect" in headers:
            return
        while len(self._ahead) < _AHEAD and (message := await _at_hand(self._receive)):
            self._ahead += (message,)
            if message["type"] == "http.disconnect":
                self._trace.disconnected(certainly=True)
                return


async def _at_hand(receive: ASGIReceiveCallable) -> ASGIReceiveEvent | None:
    """Return the next message if the server already has it, else None and cancel the wait, as frameworks do."""

    async def ask() -> ASGIReceiveEvent:
        return await receive()

    try:
        asking = asyncio.get_running_loop().create_task(ask())
    except RuntimeError:  # trio
        return None
    asking.add_done_callback(_has_answered)  # an exception that is never retrieved would be logged
    try:
        await asyncio.sleep(0)
        return asking.result() if asking.done() and _has_answered(asking) else None
    finally:
        asking.cancel()


def _has_answered(asking: asyncio.Task[ASGIReceiveEvent]) -> bool:
    """Return whether the server has returned a message; some servers raise instead."""
    return not asking.cancelled() and asking.exception() is None
