"""WebSockets under a WSGI server, where the app takes over the connection."""

from __future__ import annotations

from collections.abc import Iterable
from types import GeneratorType
from typing import TYPE_CHECKING

from mlflow_middleware.request.chunks import TracedChunks, deliver_before_the_end
from mlflow_middleware.request.lifecycle import RequestTrace

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def is_websocket(environ: WSGIEnvironment) -> bool:
    """Return whether a request opens a WebSocket (https://www.rfc-editor.org/rfc/rfc6455#section-4.1)."""
    return (
        "HTTP_UPGRADE" in environ
        and "websocket" in environ["HTTP_UPGRADE"].lower()
        and environ["REQUEST_METHOD"] == "GET"
        and "upgrade" in environ.get("HTTP_CONNECTION", "").lower()
        and "HTTP_SEC_WEBSOCKET_KEY" in environ
    )


def serve(
    app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse, trace: RequestTrace
) -> Iterable[bytes]:
    """Run an app until its socket is closed; depending on the library, it returns or raises then.

    Args:
        app: The app.
        environ: The request that opens the socket.
        start_response: The server's ``start_response``; some libraries never call it.
        trace: The stand-in for the connection.
    """
    trace.activate()
    try:
        result = app(environ, start_response)
    finally:
        trace.finish()  # each step of a generator makes it current again
        trace.deactivate()
        deliver_before_the_end(trace)
    # A server may recognize its marker of an empty result by identity, so wrap only a generator, which runs the app.
    return TracedChunks(result, trace) if isinstance(result, GeneratorType) else result
