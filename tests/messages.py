"""ASGI's scopes and messages, complete as in ``asgiref.typing``."""

from __future__ import annotations

from typing import Any

from asgiref.typing import (
    ASGIVersions,
    HTTPRequestEvent,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    HTTPScope,
    WebSocketScope,
)

Header = tuple[bytes, bytes]
ASGI: ASGIVersions = {"version": "3.0", "spec_version": "2.3"}


def http(path: str = "/", *headers: Header, method: str = "GET", query: bytes = b"") -> HTTPScope:
    """Return a request's scope."""
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.1", 50_000),
        "server": ("192.0.2.2", 80),
        "extensions": None,
    }


def websocket(path: str = "/", *headers: Header) -> WebSocketScope:
    """Return a websocket's scope."""
    return {
        "type": "websocket",
        "asgi": ASGI,
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("192.0.2.1", 50_000),
        "server": ("192.0.2.2", 80),
        "subprotocols": [],
        "extensions": None,
    }


def request(content: bytes = b"", more: bool = False) -> HTTPRequestEvent:
    """Return a piece of a request's body."""
    return {"type": "http.request", "body": content, "more_body": more}


def start(status: int = 200, *headers: Header, trailers: bool = False) -> HTTPResponseStartEvent:
    """Return the start of a response."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), "trailers": trailers}


def body(content: bytes = b"", more: bool = False) -> HTTPResponseBodyEvent:
    """Return a piece of a response's body."""
    return {"type": "http.response.body", "body": content, "more_body": more}


def other(kind: str, **fields: Any) -> Any:
    """Return a message that asgiref has no type for, or one without optional keys."""
    return {"type": kind, **fields}
