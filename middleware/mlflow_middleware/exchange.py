"""One HTTP exchange, independent of its protocol (ASGI, WSGI, Django)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mlflow_middleware import routing
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.fields import fields_of

MAX_HEADERS = 256
"""Maximum number of request headers that are read, from the first on; some servers pass on any number of them."""

MAX_HEADER_BYTES = 64 * 1024
"""Maximum number of characters of request headers that are kept, names and values together."""

MAX_TARGET = 64 * 1024
"""Maximum number of characters that are kept of a path, and of a query string."""

_HEADER_OVERHEAD = 200
"""Approximate size of the objects of one header, in bytes."""


class _NoHeaders(Mapping[str, str]):
    """Empty, hashable mapping: a dataclass rejects unhashable defaults, and a factory would run for each request."""

    __hash__ = object.__hash__

    def __getitem__(self, name: str) -> str:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


_NO_HEADERS = _NoHeaders()


@dataclass(slots=True)
class Exchange:
    """An HTTP request and its response; ``identify`` and ``mask`` receive it.

    Attributes:
        method: The request method as sent, e.g. ``"POST"``.
        path: The decoded path as the client sent it, including the mount prefix; at most 65,536 characters.
        headers: Request headers: lower-case names, values decoded from latin-1 (as in WSGI and Starlette);
            repeated headers are joined with ``","``. At most the first 256, and 65,536 characters of names and values.
        query_string: The query string, still percent-encoded, without ``?``; at most 65,536 characters.
        scheme: ``"http"`` or ``"https"``.
        http_version: ``"1.0"``, ``"1.1"``, ``"2"`` ...; empty if unknown.
        server: Host and port that the request was addressed to; the port is None if unknown.
        client: The peer's address; empty if unknown.
        request: The protocol's own request: the ASGI scope, the WSGI environ or Django's
            ``HttpRequest``. It gives ``identify`` access to the framework's own view of the caller. None once the
            trace is finished.
        route: The route's template, e.g. ``"/chats/{chat_id}"``; None until a route matches.
        status: The response's status code; None until the response starts.
        request_body: The part of the request's body that the app has read.
        response_body: The part of the response's body that was sent.
        response_type: The response's ``Content-Type``.
        response_encoding: The response's ``Content-Encoding``.
        response_headers: The response's headers and trailers, with lower-case names; only recorded if ``error_when``
            is set.
        inputs: The root span's inputs; set before ``mask`` is called, which may change them.
        outputs: The root span's outputs; ``mask`` may change them.
        inputs_cut: Whether ``inputs`` hold only a part of the request's body.
        outputs_cut: Whether ``outputs`` hold only a part of the response's body.
        held: Approximate size of the headers, the path and the query string, in bytes.
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
    response_headers: Mapping[str, str] = _NO_HEADERS
    inputs: Any = None
    outputs: Any = None
    inputs_cut: bool = False
    outputs_cut: bool = False
    held: int = 0
    _parsed: tuple[int, Any] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def body(self) -> Any:
        """The request's body as far as the app has read it, parsed: a JSON object or array, or a form's fields by name;
        None for anything else. It holds at most the first ``max_body_bytes`` and is not redacted. If the body is not
        captured, it is available until the request has been identified.
        """
        size = self.request_body.size if self.request_body else 0
        if self._parsed is None or self._parsed[0] != size:
            headers = self.headers
            kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
            self._parsed = size, fields_of(self.request_body, kind, encoding)
        return self._parsed[1]

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The parameters of the matched route, e.g. ``{"chat_id": "c-1"}``, as the framework has converted them; empty
        until a route matches and once the trace is finished.
        """
        return routing.path_params(self.request, self.route, self.path)

    def forget_parsed(self) -> None:
        """Release the parsed `body`."""
        self._parsed = None


@dataclass(slots=True)
class Job(Exchange):
    """A job in the form of an exchange, for `mask`: ``method`` is ``"JOB"``, ``path`` the job's name, ``headers`` those
    sent with it. Its arguments are the request's body, its result the response's."""


def bounded(headers: dict[str, str]) -> tuple[dict[str, str], int]:
    """Return the first headers that fit the limits, and their approximate size in bytes."""
    size = len("".join([*headers, *headers.values()]))  # the fastest way to count
    if size > MAX_HEADER_BYTES or len(headers) > MAX_HEADERS:
        headers, size = _first(headers)
    return headers, size + _HEADER_OVERHEAD * len(headers)


def _first(headers: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """Return the first headers that fit; skip one that is too large, so that it does not hide the ones after it."""
    kept: dict[str, str] = {}
    size = 0
    for name, value in islice(headers.items(), MAX_HEADERS):
        if size + len(name) + len(value) <= MAX_HEADER_BYTES:
            kept[name] = value
            size += len(name) + len(value)
    return kept, size
