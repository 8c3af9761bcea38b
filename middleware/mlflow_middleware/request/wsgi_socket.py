"""A WebSocket under a WSGI server: no request with an answer, but a connection that the app takes over."""

from __future__ import annotations

from collections.abc import Iterable
from types import GeneratorType
from typing import TYPE_CHECKING

from mlflow_middleware.request.chunks import TracedChunks, deliver_before_the_end
from mlflow_middleware.request.lifecycle import RequestTrace

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def is_websocket(environ: WSGIEnvironment) -> bool:
    """Return whether a request opens a WebSocket: https://www.rfc-editor.org/rfc/rfc6455#section-4.1, whatever the server."""
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
    """Run an app that talks over a socket, until that is closed; libraries end in ways of their own, also by raising.

    Args:
        app: The app.
        environ: The request that opens the socket.
        start_response: The server's; some libraries never call it.
        trace: Stands for the connection.
    """
    trace.activate()
    try:
        result = app(environ, start_response)
    finally:
        trace.finish()  # each step of a generator makes it current anew
        trace.deactivate()
        deliver_before_the_end(trace)
    # A server may know what says that nothing is to be sent by its identity: only what runs the app is wrapped.
    return TracedChunks(result, trace) if isinstance(result, GeneratorType) else result
