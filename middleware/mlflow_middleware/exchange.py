"""What is known of one HTTP exchange, however it came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_middleware.capture.body import Body


@dataclass(slots=True)
class Exchange:
    """One HTTP request and what became of it; the object that ``identify`` and ``mask`` are called with.

    Attributes:
        method: The request method as sent, e.g. ``"POST"``.
        path: The decoded path as the client sent it, mount prefix included.
        headers: Request headers: lower-case names, values as text decoded from latin-1
            (what WSGI and Starlette give); repeated headers are joined with ``","``.
        query_string: The query string, still percent-encoded, without ``?``.
        scheme: ``"http"`` or ``"https"``.
        http_version: ``"1.0"``, ``"1.1"``, ``"2"`` ...; empty when the server does not tell.
        server: Host and port that the request was addressed to; the port is None when unknown.
        client: The peer's address, empty when unknown.
        request: The protocol's own request: the ASGI scope, the WSGI environ or Django's
            ``HttpRequest``. From here ``identify`` reaches what the framework knows of the caller. None once the trace
            is finished.
        route: The route's template, e.g. ``"/chats/{chat_id}"``; None until (or unless) a route matched.
        status: The response's status code; None until the response started.
        request_body: What the app has read of the request's body.
        response_body: What the client was sent.
        response_type: The response's ``Content-Type``.
        response_encoding: The response's ``Content-Encoding``.
        inputs: What becomes the root span's inputs; set before ``mask`` is called, which may change it.
        outputs: What becomes its outputs.
        inputs_cut: Whether something of the request's body is missing in ``inputs``.
        outputs_cut: The same for ``outputs``.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    query_string: str = ""
    scheme: str = "http"
    http_version: str = ""
    server: tuple[str, int | None] | None = None
    client: str = ""
    request: Any = None
    route: str | None = None
    status: int | None = None
    request_body: Body | None = None
    response_body: Body | None = None
    response_type: str = ""
    response_encoding: str = ""
    inputs: Any = None
    outputs: Any = None
    inputs_cut: bool = False
    outputs_cut: bool = False
