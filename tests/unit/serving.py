"""A server of one connection, without a socket: it exchanges messages with the app."""

from __future__ import annotations

from asgiref.testing import ApplicationCommunicator
from asgiref.typing import ASGIReceiveEvent, ASGISendEvent, Scope
from mlflow.entities import Span, Trace

from mlflow_middleware.asgi import ASGIApp
from tests.apps.known import HAS_LINKS

TIMEOUT = 30
"""Seconds that a test waits for an app that hangs."""


class Serving:
    """One connection to an app.

    Args:
        app: The app.
        scope: The connection.
        given: The server's messages for the app, from the start.
    """

    def __init__(self, app: ASGIApp, scope: Scope, *given: ASGIReceiveEvent) -> None:
        self._app = ApplicationCommunicator(app, scope)
        for message in given:
            self._app.input_queue.put_nowait(message)

    async def give(self, message: ASGIReceiveEvent) -> None:
        """Let the app receive a message."""
        await self._app.send_input(message)

    async def take(self) -> ASGISendEvent:
        """Wait for the app's next message; raise its exception."""
        message: ASGISendEvent = await self._app.receive_output(TIMEOUT)
        return message

    async def cancel(self) -> None:
        """Cancel the app, like a server that stops."""
        self._app.stop()
        await self._app.wait(TIMEOUT)

    async def end(self) -> list[ASGISendEvent]:
        """Wait for the app's end, raise its exception, and return its remaining messages."""
        await self._app.wait(TIMEOUT)
        return self.sent

    @property
    def sent(self) -> list[ASGISendEvent]:
        """Return the messages that the app has sent so far, except those that were taken."""
        return [self._app.output_queue.get_nowait() for _ in range(self._app.output_queue.qsize())]

    @property
    def unread(self) -> int:
        """Return the messages that the app has not received."""
        return int(self._app.input_queue.qsize())


def root_of(trace: Trace) -> Span:
    """Return the span of the request."""
    (root,) = (span for span in trace.data.spans if span.parent_id is None)
    return root


def is_linked(trace: Trace, *spans: tuple[str, str]) -> bool:
    """Return whether the root is linked to just these (ids of trace and span); true if MLflow knows no links."""
    return not HAS_LINKS or [(link.trace_id, link.span_id) for link in root_of(trace).links or ()] == list(spans)
