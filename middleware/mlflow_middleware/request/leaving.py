"""A client that leaves before its answer is there.

Most servers let an app send to nobody, and tell of it only who asks. So does this, once, before the end of an answer
that took its time: a client does not leave within an instant.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mlflow_middleware.request.lifecycle import RequestTrace

if TYPE_CHECKING:
    from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent

ASK_AFTER = 100_000_000
"""Nanoseconds after which a request's client may have left."""

_AHEAD = 2
"""Messages that are asked for at most: a request without a body is one, the other tells who has left."""


def is_cancelled() -> bool:
    """Whether the current task was to be cancelled, and what it ran has come to an answer all the same.

    A view in a thread can not be interrupted. Python 3.10 does not tell.
    """
    task = asyncio.current_task()
    return bool(task and getattr(task, "cancelling", int)())


class Received:
    """A request as its app reads it; what it does not read, nobody does.

    Args:
        receive: The server's.
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
            self._is_asking = True  # an app that is stopped while it asks does not ask again, mostly
            message = await self._receive()
            self._is_asking = False
        if message["type"] == "http.request":
            self._trace.received(message.get("body", b""))
            self._is_read = not message.get("more_body", False)
        elif message["type"] == "http.disconnect":
            self._trace.disconnected()
        return message

    async def see_who_is_there(self) -> None:
        """Ask the server whether the client has left, where that takes nothing away from the app."""
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
    """Return the next message, if the server has it already. What waits for it is cancelled, as frameworks do it."""

    async def ask() -> ASGIReceiveEvent:
        return await receive()

    try:
        asking = asyncio.get_running_loop().create_task(ask())
    except RuntimeError:  # trio
        return None
    asking.add_done_callback(_has_answered)  # what nobody looks at would be logged
    try:
        await asyncio.sleep(0)
        return asking.result() if asking.done() and _has_answered(asking) else None
    finally:
        asking.cancel()


def _has_answered(asking: asyncio.Task[ASGIReceiveEvent]) -> bool:
    """Whether the server has given a message: some do not like to be asked."""
    return not asking.cancelled() and asking.exception() is None
