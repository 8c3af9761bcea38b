"""A stand-in for an OTLP collector: it accepts spans by HTTP (protobuf) like a real one, and keeps them."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import brotli
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,  # Sentry's
}


@dataclass
class Asked:
    """A request that it received."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def spans(self) -> list[Span]:
        message = ExportTraceServiceRequest.FromString(self.body)
        return [span for resource in message.resource_spans for scope in resource.scope_spans for span in scope.spans]


class CollectorStandIn(ThreadingHTTPServer):
    """A stand-in for a collector.

    Attributes:
        asked: The requests for traces so far.
        answers: Statuses of the next answers; 200 once they are used up.
        body: The body of its answers.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Asked] = []
        self.answers: list[int] = []
        self.body = b""
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        """Return the spans of all requests that it answered with 200."""
        return [span for asked in list(self.asked) for span in asked.spans]

    def of_trace(self, trace_id: str) -> list[Span]:
        """Return the spans of a trace, by MLflow's id or by OpenTelemetry's."""
        return [span for span in self.spans if span.trace_id.hex() == trace_id.removeprefix("tr-")]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    server: CollectorStandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200 and not self.path.endswith(("/metrics", "/logs")):
            body = _UNPACKED.get(headers.get("content-encoding", ""), bytes)(body)
            self.server.asked.append(Asked(self.path, headers, body))
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def do_PUT(self) -> None:
        """Datadog's."""
        self.do_POST()

    def do_GET(self) -> None:
        """Answer 404, as Datadog's agent asks for its features."""
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def collecting() -> Iterator[CollectorStandIn]:
    """Run a stand-in."""
    with CollectorStandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def attributes_of(span: Span) -> dict[str, Any]:
    """Return plain values of attributes as they are, others as messages."""
    return {each.key: _value(each.value) for each in span.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
