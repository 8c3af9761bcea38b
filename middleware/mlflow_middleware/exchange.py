"""What is known of one HTTP exchange, however it came in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mlflow_middleware import routing
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.fields import fields_of

MAX_HEADERS = 256
"""Request headers that are looked at, the first ones; some servers pass on any number of them."""

MAX_HEADER_BYTES = 64 * 1024
"""Characters of request headers that are kept, names and values."""

MAX_TARGET = 64 * 1024
"""Characters of a path that are kept, and of a query string."""

_HEADER_OVERHEAD = 200
"""Bytes that the objects of one header take, about."""


class _NoHeaders(Mapping[str, str]):
    """Nothing. A dataclass takes no default that cannot be hashed, and a factory would run for each request."""

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
    """One HTTP request and what became of it; the object that ``identify`` and ``mask`` are called with.

    Attributes:
        method: The request method as sent, e.g. ``"POST"``.
        path: The decoded path as the client sent it, mount prefix included; its first 65,536 characters.
        headers: Request headers: lower-case names, values as text decoded from latin-1
            (what WSGI and Starlette give); repeated headers are joined with ``","``. The first 256, up to 65,536
            characters of all of them.
        query_string: The query string, still percent-encoded, without ``?``; its first 65,536 characters.
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
        response_headers: The response's headers and trailers, names in lower case; known only where ``error_when`` is
            set.
        inputs: What becomes the root span's inputs; set before ``mask`` is called, which may change it.
        outputs: What becomes its outputs.
        inputs_cut: Whether something of the request's body is missing in ``inputs``.
        outputs_cut: The same for ``outputs``.
        held: Bytes, about, that the headers, the path and the query string take.
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
        """What the app has read of the request's body by now, parsed: the object or array of JSON, the fields of a
        form by name; None for anything else. It holds the first ``max_body_bytes``, and nothing of it is redacted. It
        is there also where the body is not captured, until the request has been identified.
        """
        size = self.request_body.size if self.request_body else 0
        if self._parsed is None or self._parsed[0] != size:
            headers = self.headers
            kind, encoding = headers.get("content-type", ""), headers.get("content-encoding", "")
            self._parsed = size, fields_of(self.request_body, kind, encoding)
        return self._parsed[1]

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The parameters of the route that was taken, e.g. ``{"chat_id": "c-1"}``, as the framework has converted them;
        empty until a route matched, and once the trace is finished.
        """
        return routing.path_params(self.request, self.route, self.path)

    def forget_parsed(self) -> None:
        """Let go of what `body` has parsed."""
        self._parsed = None


@dataclass(slots=True)
class Job(Exchange):
    """A job, as `mask` sees it: ``method`` is ``"JOB"``, ``path`` its name, ``headers`` what travelled with it. Its
    arguments are kept like a request's body, and its result like a response's."""


def bounded(headers: dict[str, str]) -> tuple[dict[str, str], int]:
    """Return the first headers, as far as they fit, and the bytes that they take, about."""
    size = len("".join([*headers, *headers.values()]))  # the quickest way to count
    if size > MAX_HEADER_BYTES or len(headers) > MAX_HEADERS:
        headers, size = _first(headers)
    return headers, size + _HEADER_OVERHEAD * len(headers)


def _first(headers: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """The first headers that fit; one that is too large is left out alone, so that it hides no other."""
    kept: dict[str, str] = {}
    size = 0
    for name, value in islice(headers.items(), MAX_HEADERS):
        if size + len(name) + len(value) <= MAX_HEADER_BYTES:
            kept[name] = value
            size += len(name) + len(value)
    return kept, size
