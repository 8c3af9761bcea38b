"""The WSGI middleware: the rules of WSGI, and the context that the app runs in."""

from __future__ import annotations

import io
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import mlflow
import pytest

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.request_trace import current
from mlflow_middleware.wsgi import TraceMiddleware
from tests.conftest import Traces
from tests.servers import PATIENT, MLflowServer, clean_environment

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

pytestmark = pytest.mark.once

BODY = b"one\ntwo\nthree\nfour"
set_by_the_app: ContextVar[str] = ContextVar("set_by_the_app", default="")


def listed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with a list."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a", b"b"]


def generated(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Answers with a generator, and starts with its first chunk."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"a"
    yield b"b"


def written(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers by ``write()`` first."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"a")
    return [b"b"]


def bodiless(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers without a body."""
    start_response("204 No Content", [])
    return []


def failed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Replaces its answer, with ``exc_info``."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ValueError("sorry")
    except ValueError:
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"sorry"]


def echoed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reads the body in pieces, in each possible way, and answers with it."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    stream: Any = environ["wsgi.input"]
    return [stream.read(2), stream.readline(), *stream.readlines(1), *stream, stream.read(10)]


def asked(app: WSGIApplication, method: str = "GET", body: bytes = b"") -> tuple[list[str], bytes]:
    """Call an app like a server; return the statuses that it started with, and all that it sent."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "wsgi.input": io.BytesIO(body), "QUERY_STRING": ""}
    if body:
        environ |= {"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": str(len(body))}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    sent = bytearray()

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        statuses.append(status)
        return sent.extend

    result = app(environ, start_response)
    try:
        for chunk in result:
            sent.extend(chunk)
    finally:
        result.close()  # type: ignore[attr-defined]
    return statuses, bytes(sent)


@pytest.mark.parametrize(
    ("app", "method", "body"),
    [
        (listed, "GET", b""),
        (generated, "GET", b""),
        (written, "GET", b""),
        (bodiless, "GET", b""),
        (bodiless, "HEAD", b""),
        (failed, "GET", b""),
        (echoed, "POST", BODY),
    ],
)
@pytest.mark.parametrize("options", [{}, {"exclude": ["*"]}], ids=["traced", "excluded"])
def test_wsgis_rules_hold_on_both_sides(
    app: WSGIApplication, method: str, body: bytes, options: dict[str, Any]
) -> None:
    """No rule is broken towards the server or the app, and the answer is the same as without the middleware."""
    plain = asked(validator(app), method, body)

    assert asked(validator(TraceMiddleware(validator(app), **options)), method, body) == plain
    assert not body or plain[1] == body


@pytest.mark.parametrize("options", [{}, {"exclude": ["*"]}], ids=["traced", "excluded"])
def test_the_apps_context_variables_stay(options: dict[str, Any]) -> None:
    """As without the middleware: Flask's ``with client:`` reads its request after the answer."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        set_by_the_app.set("called")
        yield from generated(environ, start_response)
        set_by_the_app.set("read")

    chunks = iter(TraceMiddleware(app, **options)({"REQUEST_METHOD": "GET"}, lambda *_: bytearray().extend))
    next(chunks)
    assert set_by_the_app.get() == "called"
    assert current() is None
    assert mlflow_bridge.current_span() is None
    list(chunks)
    assert set_by_the_app.get() == "read"


def test_a_span_stays_open_from_chunk_to_chunk() -> None:
    """A span that a generator opens in one step is the parent in the next, and is not current between them."""
    parents = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        with mlflow.start_span("outer") as outer:
            yield b"a"
            with mlflow.start_span("inner") as inner:
                parents.append((inner.parent_id, outer.span_id))
                yield b"b"
        with mlflow.start_span("last") as last:
            parents.append((last.parent_id, outer.parent_id))
        yield b"c"

    for _ in TraceMiddleware(app)({"REQUEST_METHOD": "GET"}, lambda *_: bytearray().extend):
        assert mlflow_bridge.current_span() is None
    assert len(parents) == 2
    assert all(seen is not None and seen == expected for seen, expected in parents)


UNCLOSED = """
from mlflow_middleware.wsgi import TraceMiddleware

def app(environ, start_response):
    start_response("200 OK", [])
    yield b"a"

read, unread = (TraceMiddleware(app)({"REQUEST_METHOD": "GET"}, print) for _ in range(2))
print(*read)
"""


def test_an_answer_that_is_never_closed_delays_no_exit() -> None:
    """A test client may forget it: the process ends all the same, at once."""
    environment = clean_environment(MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="0.1")
    done = subprocess.run([sys.executable, "-c", UNCLOSED], env=environment, check=False, timeout=60, text=True)

    assert done.returncode == 0


def test_an_answer_that_is_never_closed_is_a_trace(server: MLflowServer) -> None:
    """As test clients leave it: read to its end and dropped."""
    traces = Traces(server.uri, f"wsgi-{uuid.uuid4().hex}")
    script = UNCLOSED + "del read\n"
    environment = clean_environment(**PATIENT, MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=traces.experiment)
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)

    (trace,) = traces.wait("tags.`http.status_code` = '200'")
    (span,) = trace.data.spans
    assert "http.client_disconnected" not in span.attributes
