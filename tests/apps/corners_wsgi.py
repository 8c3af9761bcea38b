"""A plain WSGI app that covers the protocol's corner cases: traced, and untraced below ``/bare``."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_middleware.request_trace import annotate
from mlflow_middleware.wsgi import TraceMiddleware
from tests.apps import afterwards

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PIECE = b"x" * (1 << 20)
TEXT = ("Content-Type", "text/plain")
EVENTS = ("Content-Type", "text/event-stream")


def answering(status: str, *headers: tuple[str, str], body: bytes = b"") -> WSGIApplication:
    """An app with the same answer for everybody."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(headers))
        return [body] if body else []

    return app


class Chunks:
    """An iterable with a ``close()``: a span and an annotation on its first chunk, on its last, and at the end."""

    def __iter__(self) -> Iterator[bytes]:
        for number in range(3):
            seen(f"chunk {number}")
            yield f"{number}\n".encode()

    def close(self) -> None:
        seen("closed")


def seen(what: str) -> None:
    with mlflow.start_span(what):
        annotate(tags={what: "seen"})


def chunks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return Chunks()


def late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """A generator that starts its answer with its first chunk."""
    start_response("203 Non-Authoritative Information", [TEXT])
    seen("begun")
    yield b""
    yield b"late"


def written(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", [TEXT])
    seen("written")
    write(b"first,")
    write(b"second,")
    return iter([b"third"])


def write_on(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Write until the client disconnects."""
    write = start_response("200 OK", [EVENTS])
    while True:
        write(b"data: tick\n\n")
        time.sleep(0.01)


class Counted(io.FileIO):
    """A file that counts how often it is read in Python."""

    reads = 0

    def read(self, *size: Any) -> bytes:
        Counted.reads += 1
        return super().read(*size) or b""


def a_file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", str(Path(__file__).stat().st_size))])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](Counted(__file__), 8192)
    return wrapped


def reads(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT])
    return [str(Counted.reads).encode()]


def replaced(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Start an answer, and replace it before anything is sent."""
    start_response("200 OK", [TEXT, ("X-First", "1")])
    try:
        raise LookupError("no such chat")
    except LookupError:
        start_response("404 Not Found", [TEXT, ("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def too_late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Replace an answer after the headers have been sent, so that the server raises the exception."""
    start_response("200 OK", [TEXT])
    yield b"begun"
    try:
        raise RuntimeError("the model went away")
    except RuntimeError:
        start_response("500 Internal Server Error", [TEXT], sys.exc_info())
    yield b"never"


def broken(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [TEXT])
    yield b"begun"
    raise RuntimeError("the model went away")


def tokens(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """A stream of this many tokens over this many milliseconds."""
    count, milliseconds = map(int, environ["PATH_INFO"].split("/")[2:])
    start_response("200 OK", [EVENTS])
    for number in range(count):
        if number in (0, count - 1):
            with mlflow.start_span(f"token {number}"):
                annotate(tags={"token": number})
        yield f"data: token {number}\n\n".encode()
        time.sleep(milliseconds / count / 1000)


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    size = 0
    while piece := environ["wsgi.input"].read(len(PIECE)):
        size += len(piece)
    start_response("200 OK", [TEXT])
    return [str(size).encode()]


def download(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    count = int(environ["PATH_INFO"].split("/")[2])
    start_response("200 OK", [("Content-Length", str(count * len(PIECE)))])
    for _ in range(count):
        yield PIECE


class Answer:
    """Works on after its last chunk, until it is closed."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"answer"

    def close(self) -> None:
        afterwards.work()


class FailingAnswer(Answer):
    """Works on after its last chunk, and fails."""

    def close(self) -> None:
        super().close()
        raise RuntimeError("the index is unavailable")


def after(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [TEXT, ("Content-Length", "6")])
    return FailingAnswer() if environ["PATH_INFO"] == "/after-and-fail" else Answer()


def open_gate(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    afterwards.open_gate(environ["PATH_INFO"].split("/")[2])
    start_response("200 OK", [TEXT])
    return [b"open"]


def hang(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    with mlflow.start_span("hanging"):
        time.sleep(60)
    return []


HANDLERS: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "plain": answering("200 OK", TEXT, ("Content-Length", "5"), body=b"whole"),
    "created": answering("201 Created", ("Location", "/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")),
    "no-content": answering("204 No Content"),
    "not-modified": answering("304 Not Modified", ("ETag", '"5"')),
    "range": answering(
        "206 Partial Content", ("Content-Range", "bytes 0-4/10"), ("Content-Length", "5"), body=b"range"
    ),
    "health": answering("200 OK", TEXT, body=b"fine"),
    "chunks": chunks,
    "late": late,
    "written": written,
    "write-on": write_on,
    "file": a_file,
    "reads": reads,
    "replaced": replaced,
    "too-late": too_late,
    "broken": broken,
    "tokens": tokens,
    "upload": upload,
    "download": download,
    "after": after,
    "after-and-fail": after,
    "open": open_gate,
    "hang": hang,
}


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return HANDLERS[environ["PATH_INFO"].split("/")[1]](environ, start_response)


traced = TraceMiddleware(TraceMiddleware(bare))


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if not path.startswith("/bare/"):
        return traced(environ, start_response)
    environ["PATH_INFO"] = path.removeprefix("/bare")
    return bare(environ, start_response)
