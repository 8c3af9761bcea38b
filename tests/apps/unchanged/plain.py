"""Apps without a framework: ASGI and WSGI, one that cannot be wrapped, and one that wraps others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answer all paths."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"well"})


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer all paths."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"well"]


class Answer:
    """An app that is a class, as in PEP 3333."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._start_response = start_response

    def __iter__(self) -> Iterator[bytes]:
        self._start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"well"


async def rsgi(scope: Any, protocol: Any) -> None:
    """An app for Granian's own protocol."""
    protocol.response_str(200, [], "well")


class Around:
    """A third-party middleware around a whole app."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
