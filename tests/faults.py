"""A stand-in for failures of the network and the server: it forwards to a real MLflow server, or fails on demand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"}


class FaultyServer(ThreadingHTTPServer):
    """Forwards to an MLflow server while ``mode`` is ``pass``.

    Args:
        target: The MLflow server's address.
        port: The port to listen on; 0 for any free port.

    Attributes:
        mode: ``pass``, ``500``, ``401``, ``429`` (with ``Retry-After: 1``), ``hang``, ``reset``,
            ``truncate``, ``login`` (a proxy's page, with 200), ``spans`` (500 for spans only), ``silent`` (no answer
            except to the version, like a server that waits for its database), ``forgotten`` (traces are accepted, not
            returned), ``stuck`` (spans get no answer), ``undeletable`` (500 for spans, and for deleting a trace) or
            ``pool`` (400 for traces, as MLflow answers when its database has no free connection).
        manner: How it answers forwarded requests: ``plain``; ``close``, one request per connection; ``chunked``; or
            ``forgetful``, where requests that were sent ahead are lost.
        fail_over: Requests with this in the body get a 500, in every mode; nothing by default.
        refuse_over: Requests with this in the body get a 400, in every mode; nothing by default.
        version: The version that it reports; None for the real one.
        ahead: The seconds by which its clock is ahead.
        max_body: The limit of a request's body in bytes, like nginx's: above it, 413 and a closed connection.
        host: The ``Host`` that it forwards; by default that of its target.
        delay: The seconds by which each answer is delayed.
        busy: The number of first requests that get a 503.
        failed: The number of requests that failed on purpose.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, target: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.target = target
        self.mode = "pass"
        self.manner = "plain"
        self.fail_over = self.refuse_over = b""
        self.version: str | None = None
        self.ahead = 0.0
        self.host = ""
        self.max_body = sys.maxsize
        self.delay = 0.0
        self.busy = 0
        self.failed = 0
        self.released = threading.Event()
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


@contextlib.contextmanager
def faulty(target: str, port: int = 0, certificate: Path | None = None) -> Iterator[FaultyServer]:
    """Run a stand-in; with a certificate, on HTTPS."""
    server = FaultyServer(target, port)
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.uri = server.uri.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if length > self.server.max_body:
            self.server.failed += 1
            self._answer(413, {"Content-Type": "text/html"}, b"<html>413 Request Entity Too Large</html>")
            self.close_connection = True
            self.rfile.read(length)  # otherwise the client would see a broken connection instead
            return
        body = self.rfile.read(length)
        mode = self._mode(body)
        if self.server.busy > 0:
            self.server.busy -= 1
            mode = "503"
        if self.path == "/version" and self.server.version:
            self._answer(200, {"Content-Type": "text/html; charset=utf-8"}, self.server.version.encode())
            return
        if mode == "pass":
            self._forward(body)
            return
        self.server.failed += 1
        self.close_connection = True
        if mode == "hang":
            self.server.released.wait(60)
        elif mode == "reset":
            # linger on, for 0 s: close() sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif mode == "truncate":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        elif mode == "login":
            self._answer(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
        elif mode == "pool":
            self._answer(400, {}, b'{"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5 reached"}')
        else:
            headers = {"Retry-After": "1"} if mode == "429" else {}
            self._answer(int(mode), headers, b'{"error_code": "STAND_IN", "message": "told to fail"}')

    def _mode(self, body: bytes) -> str:
        """Return the mode that applies to this request."""
        for status, poison in (("500", self.server.fail_over), ("400", self.server.refuse_over)):
            if poison and poison in body:
                return status
        mode = self.server.mode
        is_look_up = self.command == "GET" and "/mlflow/traces/" in self.path
        concerned = {
            "spans": ("500", self.path == "/v1/traces"),
            "pool": ("pool", self.path.endswith("/traces")),
            "silent": ("hang", self.path != "/version"),
            "stuck": ("hang", self.path == "/v1/traces"),
            "undeletable": ("500", self.path == "/v1/traces" or self.path.endswith("/delete-traces")),
            "forgotten": ("404", is_look_up),
        }
        if mode not in concerned:
            return mode
        failure, applies = concerned[mode]
        return failure if applies else "pass"

    do_GET = do_POST = do_PATCH = do_PUT = _serve  # noqa: N815

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the value of the header ``Date``."""
        return super().date_time_string((timestamp or time.time()) + self.server.ahead)

    def _forward(self, body: bytes) -> None:
        time.sleep(self.server.delay)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in {"host", "connection"}}
        if self.server.host:
            headers["Host"] = self.server.host
        reply = requests.request(self.command, self.server.target + self.path, data=body, headers=headers, timeout=60)
        kept = {key: value for key, value in reply.headers.items() if key.lower() not in HOP_BY_HOP}
        self._answer(reply.status_code, kept, reply.content)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        manner = self.server.manner
        if manner == "forgetful":
            self._forget()
        length = {"Transfer-Encoding": "chunked"} if manner == "chunked" else {"Content-Length": str(len(body))}
        closing = {"Connection": "close"} if manner == "close" else {}
        self.send_response(status)
        for name, value in {**headers, **length, **closing}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if manner == "chunked" else body)
        if manner == "close":
            self.close_connection = True

    def _forget(self) -> None:
        """Read and drop the bytes that have arrived already."""
        self.connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self.connection.recv(65536):
                pass
        self.connection.setblocking(True)
        self.rfile.close()
        self.rfile = self.connection.makefile("rb")
