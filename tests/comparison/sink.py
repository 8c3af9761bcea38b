"""A stand-in for the tools' destinations: it keeps what it receives, and can be unreachable or mute for a while."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import free_port

_UNPACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
_ANSWERS = {
    "/info": b'{"endpoints": ["/v0.4/traces", "/evp_proxy/v2/", "/evp_proxy/v4/"], "version": "7.70.0",'
    b' "batch_ingest_config": {"use_multipart_endpoint": false, "size_limit": 100, "size_limit_bytes": 20971520,'
    b' "scale_up_nthreads_limit": 16, "scale_up_qsize_trigger": 1000, "scale_down_nempty_trigger": 4}}',
    "/v1/info": b'{"project_name": "compared", "project_url": "http://127.0.0.1/compared"}',
}
"""The self-descriptions of Datadog's agent, LangSmith's server and Logfire's."""


@dataclass
class Asked:
    """A request that it received."""

    path: str
    headers: dict[str, str]
    body: bytes


class Sink:
    """A server that keeps the requests that it receives.

    Attributes:
        asked: The requests so far.
        uri: Its address.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen."""
        self._server = _Server(("127.0.0.1", self._port), _handler(self.asked))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


def _handler(asked: list[Asked]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            chunked = headers.get("transfer-encoding", "") == "chunked"
            body = self._chunks() if chunked else self.rfile.read(int(headers.get("content-length") or 0))
            asked.append(Asked(self.path, headers, _UNPACKED.get(headers.get("content-encoding", ""), bytes)(body)))
            self._answer(200, b"{}" if "json" in headers.get("content-type", "") or "/v0" in self.path else b"")

        do_PUT = do_PATCH = do_POST  # noqa: N815

        def do_GET(self) -> None:
            answer = _ANSWERS.get(self.path.split("?")[0])
            self._answer(200 if answer else 404, answer or b"{}")

        def _chunks(self) -> bytes:
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if body else "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")  # so that a stop ends all
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    return Handler
