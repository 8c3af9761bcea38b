"""Answers over one connection, however the network splits them: a real socket, with a server that is a few lines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import pytest

from mlflow_middleware.delivery.pipelined_http import PipelinedConnection, Unreadable
from mlflow_middleware.mlflow_bridge import Address

pytestmark = pytest.mark.once

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
BODIES = [b'{"number": %d}' % number for number in range(12)]


@contextmanager
def answering(pieces: Sequence[bytes]) -> Iterator[PipelinedConnection]:
    """A pipeline to a server that sends these pieces after the first request, and then nothing."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # a client that has read enough resets the connection
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        pipeline = PipelinedConnection(
            Address("127.0.0.1", listener.getsockname()[1], None, "", {"Host": "here"}), timeout=30
        )
        try:
            yield pipeline
        finally:
            pipeline.close()
            thread.join()


def answers(pipeline: PipelinedConnection) -> list[bytes]:
    return [answer.content for answer in pipeline.post("/", {}, BODIES)]


@pytest.mark.parametrize("size", [1, 2, 7, 61, 1000, 65536])
def test_answers_come_in_pieces_of_any_size(size: int) -> None:
    """Each is read whole, in order, with its own body; one of them is empty."""
    sent = [*BODIES[:-1], b""]
    whole = b"".join(ANSWER % (len(body), body) for body in sent)

    with answering([whole[at : at + size] for at in range(0, len(whole), size)]) as pipeline:
        assert answers(pipeline) == sent


def test_lines_may_end_without_a_carriage_return() -> None:
    """As lenient recipients take them: https://www.rfc-editor.org/rfc/rfc9112#section-2.2"""
    with answering([b"HTTP/1.1 200 OK\nContent-Length: 2\n\r\n{}" * len(BODIES)]) as pipeline:
        assert answers(pipeline) == [b"{}"] * len(BODIES)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000,
        b"ICY 200 OK\r\n\r\n",
    ],
    ids=["bare-line-feeds", "chunked", "no-length", "long-head", "no-http"],
)
def test_other_answers_are_left_to_a_complete_http_client(answer: bytes) -> None:
    """They are reported at once, not waited for."""
    with answering([answer]) as pipeline, pytest.raises(Unreadable):
        answers(pipeline)


@pytest.mark.parametrize("left", [1, 40, 70])
def test_an_early_end_of_the_connection_ends_the_answers(left: int) -> None:
    """Complete answers count; the other requests must be sent again."""
    whole = ANSWER % (2, b"{}")

    with answering([whole, whole, whole[:left]]) as pipeline:
        assert answers(pipeline) == [b"{}", b"{}"]
