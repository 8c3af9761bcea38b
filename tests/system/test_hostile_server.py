"""A server that is no tracking server, or not ours any more: it learns no secrets, and fills no memory."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from mlflow_middleware.delivery.pipelined_http import PipelinedConnection
from mlflow_middleware.delivery.rest import MAX_LINE, ConnectionProblem, ask
from mlflow_middleware.mlflow_bridge import Address, answers

pytestmark = pytest.mark.once

BOMB = gzip.compress(b" " * (answers.MAX_ANSWER + 1))


class Hostile(ThreadingHTTPServer):
    """Answers with its ``answer``.

    Attributes:
        asked: Method, path, headers and body of each request.
        answer: Status, headers and body; ``None`` as the body is one that never ends.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: tuple[int, dict[str, str], bytes | None] = (200, {}, b"{}")
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class Handler(BaseHTTPRequestHandler):
    server: Hostile
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        status, headers, content = self.server.answer
        if status >= 300 and self.path.startswith("/moved"):
            status, headers, content = 200, {}, b'{"here": true}'
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(10**11 if content is None else len(content)))
        self.end_headers()
        while content is None:
            self.wfile.write(b" " * 65536)
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hostile]:
    server = Hostile()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    """The server that the environment names, with credentials."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    with serving() as server:
        yield server


def message_about(server: Hostile) -> str:
    """Return the message about the server."""
    with pytest.raises(ConnectionProblem) as caught:
        ask(server.uri, "POST", "/api/3.0/mlflow/traces", json={"private": "words"})
    return str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_named_and_not_followed(server: Hostile, status: int) -> None:
    """It gets neither credentials nor a body."""
    with serving() as other:
        for location in (f"{other.uri}/moved?token=hunter2", f"//127.0.0.1:{other.server_address[1]}/moved"):
            server.answer = (status, {"Location": location}, b"")
            said = message_about(server)
            assert urlsplit(other.uri).netloc in said
            assert "hunter2" not in said
    assert other.asked == []


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_of_the_same_server_is_followed(server: Hostile, status: int) -> None:
    """It is the same server under another path, and gets the whole request."""
    server.answer = (status, {"Location": "/moved?a=1"}, b"")

    assert ask(server.uri, "POST", "/api", json={"private": "words"}) == (200, {"here": True})
    method, path, headers, body = server.asked[-1]
    assert (method, path, body) == ("POST", "/moved?a=1", b'{"private": "words"}')
    assert headers["Authorization"] == "Bearer hunter2"


def test_a_redirect_loop_ends(server: Hostile) -> None:
    """After a few redirects."""
    server.answer = (308, {"Location": "/round"}, b"")

    assert "does not answer like an MLflow server (status 308)" in message_about(server)
    assert len(server.asked) == answers.MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("headers", "body"), [({}, None), ({"Content-Encoding": "gzip"}, BOMB)], ids=["gigabytes", "bomb"]
)
def test_an_endless_answer_is_cut(server: Hostile, headers: dict[str, str], body: bytes | None) -> None:
    """Also one that is small until it is decompressed."""
    server.answer = (200, headers, body)

    assert f"more than {answers.MAX_ANSWER} bytes" in message_about(server)


def test_a_compressed_answer_is_read(server: Hostile) -> None:
    """Although none was requested."""
    server.answer = (200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"a": 1}'))

    assert ask(server.uri, "GET", "/api") == (200, {"a": 1})


def test_an_endless_answer_is_not_read_over_our_own_connection(server: Hostile) -> None:
    """Its length is announced first."""
    server.answer = (200, {}, None)
    host, port = urlsplit(server.uri).hostname or "", urlsplit(server.uri).port or 0

    with pytest.raises(ConnectionError, match=f"an answer of {10**11} bytes"):
        list(PipelinedConnection(Address(host, port, None, "", {"Host": host}), 10).post("/api", {}, [b"{}"]))


def test_a_servers_message_is_one_line_of_500_characters(server: Hostile) -> None:
    """Without control characters that a terminal would obey."""
    server.answer = (400, {}, b'{"error_code": "X", "message": "\\u001b[2J' + b"x" * 1000 + b'\\nsecond"}')

    message = ask(server.uri, "GET", "/api")[1]["message"]
    assert message.isprintable()
    assert len(message) == MAX_LINE
