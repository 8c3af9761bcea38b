"""HTTP/1.1 pipelining: many small requests over one connection, sent before the first is answered.

Each trace's info is a separate request. Through MLflow's client each would take a whole round trip; here up to `DEPTH`
of them share one. Sending a request twice does no harm, so unanswered requests are sent again after a connection ends.
"""

from __future__ import annotations

import errno
import functools
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_middleware._internal import clock
from mlflow_middleware.delivery.fitting import fitting
from mlflow_middleware.mlflow_bridge import Address

DEPTH = 32
"""Maximum number of requests sent ahead of their responses."""

MAX_AHEAD_BYTES = 64 * 1024
"""Approximate maximum number of bytes sent ahead of their responses: the capacity of the buffers between two hosts."""

MIN_SLEEP, MAX_SLEEP = 0.005, 0.5
"""Shortest and longest sleep before the next response is read, in seconds."""

WAITED = 0.001
"""Seconds of reading after which a response counts as not yet received."""

SHARE, SHARE_OF_REST = 0.9, 1.1
"""Shares of the expected time, by the last batch's pace, to sleep at first and for the remaining responses."""

MAX_ANSWER = 64 * 1024 * 1024
"""Maximum size of one response, in bytes."""

_BUFFER = 65536
_MAX_HEAD = 65536
_MAX_DIGITS = 12


@dataclass(slots=True)
class Answer:
    """A server's response, with the attribute names of ``requests.Response``.

    Attributes:
        status_code: The HTTP status.
        headers: The headers, by lower-case name.
        content: The body.
    """

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Return the body as JSON; raise ValueError if it is not JSON."""
        return json.loads(self.content)


class Unreadable(Exception):
    """The response needs a complete HTTP client."""


class PipelinedConnection:
    """A persistent connection to one server, opened on demand.

    Args:
        address: The server's address and the headers of each request.
        timeout: Seconds to wait for a connection, and for the whole of each response.

    Attributes:
        depth: Number of requests that are sent ahead; 1 once the server has turned out to close the connection after
            each response, or to discard requests that are sent ahead.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self.depth = DEPTH
        self._address = address
        self._timeout = timeout
        self._pace = 0.0  # seconds for each response in the last batch
        self._socket: socket.socket | None = None
        self._answers: _Answers | None = None

    def post(self, path: str, headers: Mapping[str, str], bodies: Sequence[bytes]) -> Iterator[Answer]:
        """Send bodies to one path; yield the responses in order, and stop early when no more arrive.

        Raises:
            OSError: No response arrived.
            Unreadable: The response needs a complete HTTP client.
        """
        bodies = fitting(bodies, self.depth, MAX_AHEAD_BYTES, len)
        answered = 0
        try:
            for answer in self._exchange(self._head(path, headers), bodies):
                answered += 1
                yield answer
        except OSError as error:
            if not answered:
                raise
            if isinstance(error, TimeoutError):
                self.depth = 1

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._answers = None

    def _exchange(self, head: bytes, bodies: Sequence[bytes]) -> Iterator[Answer]:
        requests = b"".join(b"%b%d\r\n\r\n%b" % (head, len(body), body) for body in bodies)
        began = clock.monotonic()
        answer, fresh = self._send(requests, len(bodies))
        if fresh and _ends(answer):
            self.depth = 1
        used, answers = self._socket, self._answers
        left = len(bodies)
        has_waited = False
        try:
            while True:
                left -= 1
                if _ends(answer):
                    self.close()  # before the response is yielded: the caller may not come back for the next one
                    left = 0
                yield answer
                if not left or answers is None:
                    if len(bodies) > 1:  # if all had arrived already, the server is faster than expected
                        is_known = has_waited or not self._pace
                        self._pace = (clock.monotonic() - began) / len(bodies) if is_known else self._pace / 2
                    return
                asked = clock.monotonic()
                answer = answers.read()
                if clock.monotonic() - asked > WAITED:
                    has_waited = True
                    self._rest(SHARE_OF_REST * (left - 1))
        finally:
            if left and self._socket is used:
                self.close()

    def _rest(self, answers: float) -> None:
        """Sleep while responses arrive: waking up for each costs the app 0.1 ms every time."""
        pause = min(MAX_SLEEP, self._pace * answers)
        if answers > 1 and pause > MIN_SLEEP:
            time.sleep(pause)

    def _send(self, requests: bytes, count: int) -> tuple[Answer, bool]:
        """Send requests and read the first response; retry once if a kept connection has been closed.

        Returns:
            The response, and whether the connection is new.
        """
        while True:
            fresh = self._socket is None
            try:
                return self._send_once(requests, count), fresh
            except (ConnectionError, ssl.SSLError):
                self.close()
                if fresh:
                    raise
            except BaseException:
                self.close()
                raise

    def _send_once(self, requests: bytes, count: int) -> Answer:
        connection, answers = self._open()
        try:
            connection.sendall(requests)
        except ConnectionError:  # a server that refuses may close before it has read everything, for example with a 413
            early = answers.read()
            return Answer(early.status_code, {**early.headers, "connection": "close"}, early.content)
        self._rest(SHARE * count)
        return answers.read()

    def _open(self) -> tuple[socket.socket, _Answers]:
        if self._socket is None or self._answers is None:
            host, port = self._address.host, self._address.port
            if self._address.tls is None:
                connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
            else:
                connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._address.tls)
            try:
                connection.connect()
            except TimeoutError as error:
                raise OSError(errno.ETIMEDOUT, str(error)) from error  # means that nothing listens there
            self._socket = connection.sock
            self._answers = _Answers(connection.sock, self._timeout)
        return self._socket, self._answers

    def _head(self, path: str, headers: Mapping[str, str]) -> bytes:
        """Return the head of a request, up to the length of its body."""
        lines = [f"POST {self._address.path}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (*self._address.headers.items(), *headers.items())]
        lines += ["Accept-Encoding: identity", "Content-Length: "]
        return "\r\n".join(lines).encode("latin-1")


def _ends(answer: Answer) -> bool:
    """Return whether the server closes the connection after a response."""
    return answer.headers.get("connection", "").lower() == "close"


class _Answers:
    """The responses of one connection; without TLS, one system call may read many of them.

    Args:
        connection: The connection.
        timeout: Seconds to wait for the whole of each.
    """

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._until = 0.0
        self._received = bytearray()

    def read(self) -> Answer:
        """Read one response.

        Raises:
            ConnectionError: The connection ended first, or the response is too large.
            TimeoutError: The response takes too long.
            Unreadable: The response is not as plain as an MLflow server's.
        """
        self._until = clock.monotonic() + self._timeout
        while (end := self._received.find(b"\n\r\n")) < 0:
            if b"\n\n" in self._received or len(self._received) > _MAX_HEAD:
                raise Unreadable("no HTTP/1.1 answer")
            self._receive("before an answer")
        status, headers, length = _parsed(self._taken(end))
        del self._received[: len(b"\n\r\n")]
        if length > MAX_ANSWER:
            raise ConnectionError(f"an answer of {length} bytes is too large")
        while len(self._received) < length:
            self._receive("inside an answer")
        return Answer(status, headers, self._taken(length))

    def _receive(self, where: str) -> None:
        left = self._until - clock.monotonic()
        if left <= 0:
            raise TimeoutError(f"timed out: no complete answer within {self._timeout:.0f} s")
        if left < self._timeout / 2:  # otherwise not worth two more system calls
            self._connection.settimeout(left)
        chunk = self._connection.recv(_BUFFER)
        if left < self._timeout / 2:
            self._connection.settimeout(self._timeout)
        if not chunk:
            raise ConnectionError(f"the connection was closed {where}")
        self._received += chunk

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


@functools.lru_cache(maxsize=64)  # responses of the same second have the same head
def _parsed(lines: bytes) -> tuple[int, Mapping[str, str], int]:
    """Parse the head of a response; return status, headers and length."""
    first, *rest = lines.split(b"\n")
    version, _, reason = first.partition(b" ")
    status = reason[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit() or not 200 <= int(status) <= 599:
        raise Unreadable("no HTTP/1.1 answer")
    headers: dict[str, str] = {}
    for line in rest:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or not length.isdecimal() or len(length) > _MAX_DIGITS:
        raise Unreadable("an answer without Content-Length")
    if version == b"HTTP/1.0":
        headers["connection"] = "close"
    return int(status), headers, int(length)
