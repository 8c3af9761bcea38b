"""Hostile requests: for any request, the app answers as without the middleware, and nothing is reflected unescaped.

Each request goes, byte for byte the same, to an app and to its twin with the middleware disabled.
"""

from __future__ import annotations

import io
import re
import socket
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import Trace

from mlflow_middleware.capture import MAX_ATTRIBUTE
from mlflow_middleware.identity import MAX_ID, MAX_REQUEST_ID
from tests.conftest import AppRunner, RunningApp
from tests.servers import eventually

OURS = {"x-request-id", "x-mlflow-trace-id", "access-control-expose-headers"}
"""The response headers that the middleware adds."""

VARYING = OURS | {"date"}

OUR_TAGS = {"client_request_id", "mlflow.trace.session", "mlflow.trace.user", "http.route", "http.status_code"}
"""The tags and metadata that contain parts of the request."""

ACCEPTABLE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/+=@~-]{{0,{MAX_REQUEST_ID - 1}}}")

IDENTITY = (b"X-Request-ID", b"X-Session-ID", b"X-User-ID")
HEADERS = (*IDENTITY, b"traceparent", b"tracestate", b"User-Agent", b"Origin")

VALUES = [
    b"",
    b" \t  ",
    b"r-1.a_b:c/d+e=f@g~h",
    b"' OR tags.`mlflow.trace.user` != '",
    b"<script>alert(1)</script>",
    b"a%0d%0aX-Injected: 1",
    b"a" * 300,
    b"b" * 3_000,
    b"c" * 10_000,
    b"caf\xe9 \xa0\xff",
    "\u96ea \U0001f600 Jos\xe9".encode(),
    "\u96ea".encode() * 1_000,
    "a\x85b\u2028c\u202ed\ufeffe".encode(),
    b"a\xc3\x28\xed\xa0\x80\xf8\xfe",
    b"a\tb",
    b"a\x00b",
    b"a\x1b[31mb",
    bytes(range(1, 9)) + bytes(range(14, 32)) + b"\x7f",
    bytes(range(0x80, 0xA0)),
    b"a\rX-Injected: 1",
    b"a\nX-Injected: 1",
    b"a\r\n X-Injected: 1",
    b"a\r\nX-Injected: 1",
    b"a\r\n\r\nHTTP/1.1 200 OK\r\nX-Injected: 1\r\n\r\n",
]


@dataclass(frozen=True)
class Sent:
    """One request, as bytes."""

    target: bytes = b"/status/200"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    host: bytes = b"shop.example"

    def encoded(self) -> bytes:
        lines = [b"GET %b HTTP/1.1" % self.target, b"Connection: close", b"Host: %b" % self.host]
        return b"\r\n".join([*lines, *(b"%b: %b" % header for header in self.headers), b"", b""])

    def request_id(self) -> str | None:
        """The request id that was sent, if it is one that must be kept."""
        values = [value for name, value in self.headers if name == b"X-Request-ID"]
        text = values[0].decode("latin-1").strip() if len(values) == 1 and not self.is_split() else ""
        return text if ACCEPTABLE.fullmatch(text) else None

    def is_split(self) -> bool:
        """Whether line breaks turn it into other headers, which each server interprets in its own way."""
        parts = (self.target, self.host, *(value for _, value in self.headers))
        return any(line_break in part for part in parts for line_break in (b"\r", b"\n"))


@dataclass(frozen=True)
class Answer:
    """The answer; a status of None is a connection closed without an answer."""

    status: int | None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def of(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    def without_ours(self) -> tuple[Any, ...]:
        """Return everything that must be the same with and without the middleware."""
        return (self.status, sorted(pair for pair in self.headers if pair[0].lower() not in VARYING), self.body)


class _Received:
    """Bytes instead of a socket, for ``HTTPResponse``."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def exchange(app: RunningApp, sent: Sent) -> Answer:
    """Send a request to an app, and read until the server closes the connection."""
    address = urlsplit(app.url)
    received = []
    with socket.create_connection((address.hostname, address.port or 80), timeout=30) as connection:
        try:
            connection.sendall(sent.encoded())
            while chunk := connection.recv(65536):
                received.append(chunk)
        except ConnectionError:
            pass  # a server that rejects a request may close before it has read all of it
    response = HTTPResponse(cast(socket.socket, _Received(b"".join(received))))
    try:
        response.begin()
        return Answer(response.status, tuple(response.getheaders()), response.read())
    except HTTPException:
        return Answer(None, body=b"".join(received))


@dataclass
class Twins:
    """An app, and the same app with the middleware disabled."""

    app: RunningApp
    twin: RunningApp
    began: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def ask(self, sent: Sent) -> Answer:
        """Send a request to both; return the app's answer, once the general assertions have passed."""
        answer, expected = exchange(self.app, sent), exchange(self.twin, sent)
        assert answer.without_ours() == expected.without_ours()
        assert all(value.isascii() and value.isprintable() for name in OURS for value in answer.of(name))
        if answer.of("x-mlflow-trace-id"):
            (request_id,) = answer.of("x-request-id")
            if sent.request_id() or not sent.is_split():
                assert request_id == sent.request_id() or re.fullmatch("[0-9a-f]{32}", request_id)
            assert ACCEPTABLE.fullmatch(request_id)
            assert sent.request_id() in (None, request_id)
        return answer

    def stored(self, answers: Iterable[Answer]) -> list[Trace]:
        """Wait until the traces of all answers are stored, and read them."""
        query = f"attributes.timestamp_ms >= {self.began} AND span.name LIKE '%'"
        wanted = {trace_id for answer in answers for trace_id in answer.of("x-mlflow-trace-id")}

        def all_there() -> bool:
            found = self.app.traces.search(query, spans=False)
            return wanted <= {trace.info.trace_id for trace in found if trace.info.client_request_id}

        assert wanted
        eventually(all_there, f"{len(wanted)} traces stored", pause=1.0)
        return [trace for trace in self.app.traces.search(query) if trace.info.trace_id in wanted]


@pytest.fixture
def twins(app: RunningApp, run_app: AppRunner) -> Twins:
    """Each test app in turn, and its twin without the middleware."""
    return Twins(app, run_app(app.name, {"enabled": False}))


def table() -> list[Sent]:
    """Yield every hostile value in every place that the middleware reads."""
    return [
        *(Sent(headers=tuple((name, value) for name in HEADERS)) for value in VALUES),
        *(Sent(headers=tuple((name, value) for name in IDENTITY * 2)) for value in VALUES[:3]),
        *(Sent(host=value) for value in VALUES),
        *(Sent(b"/nowhere/%b?a=%b&token=%b" % (value, value, value)) for value in VALUES),
        Sent(host=b"shop.example:99999999"),
        Sent(host=b"jane:secret@shop.example"),
        Sent(headers=((b"traceparent", b"00-%b-%b-01" % (b"0" * 32, b"0" * 16)),)),
        Sent(headers=((b"traceparent", b"00-%b-%b-00" % (b"a" * 32, b"b" * 16)),)),
        Sent(headers=((b"traceparent", b"00-%b-%b-01" % (b"a" * 32, b"b" * 16)),) * 2),
        Sent(b"/stream", tuple((name, b"a\xff\xc3\xa9") for name in IDENTITY)),
        Sent(b"/fail", tuple((name, b"a\xff\xc3\xa9") for name in IDENTITY)),
        Sent(b"/status/200?%zz&%&=&%00=%ff&" + b"a=1&" * 500),
        Sent(b"/nowhere/%zz%00%ff%ed%a0%80%0d%0aX-Injected:%201"),
    ]


def is_safe(text: str) -> bool:
    """Return whether a text has no control, format or surrogate character and no line or paragraph separator."""
    return not any(unicodedata.category(char)[0] == "C" or unicodedata.category(char) in ("Zl", "Zp") for char in text)


def unsafe(trace: Trace) -> dict[str, str]:
    """Return the values of a stored trace that are too long or not printable."""
    (root,) = [span for span in trace.data.spans if span.parent_id is None]
    stored = [
        *((key, value, MAX_ID) for key, value in trace.info.tags.items() if key in OUR_TAGS),
        *((key, value, MAX_ID) for key, value in trace.info.trace_metadata.items() if key in OUR_TAGS),
        *((key, str(value), MAX_ATTRIBUTE) for key, value in root.attributes.items() if not key.startswith("mlflow.")),
        ("name", root.name, MAX_ATTRIBUTE),
    ]
    return {key: value for key, value, limit in stored if len(value) > limit or not is_safe(value)}


VALUE = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=200).map(str.encode),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=300).map(
        lambda text: text.encode("latin-1")
    ),
    st.sampled_from(VALUES),
)
TARGET = st.one_of(
    st.sampled_from([b"/status/200", b"/status/404", b"/stream"]),
    VALUE.map(lambda value: b"/status/200?" + value),
    VALUE.map(lambda value: b"/nowhere/" + value),
)
REQUESTS = st.builds(
    Sent,
    TARGET,
    st.lists(st.tuples(st.sampled_from([*HEADERS, b"X-Other"]), VALUE), max_size=8).map(tuple),
    st.one_of(st.just(b"shop.example"), VALUE),
)


@pytest.mark.heavy
def test_hostile_requests_are_answered_as_without_the_middleware(twins: Twins) -> None:
    """With the same status, headers and body, nothing reflected, and a clean trace of every request that was parsed."""
    answers = [twins.ask(sent) for sent in table()]

    @given(REQUESTS)
    @settings(max_examples=40, deadline=None, derandomize=True)
    def ask(sent: Sent) -> None:
        answers.append(twins.ask(sent))

    ask()
    traces = twins.stored(answers)
    assert {trace.info.trace_id: bad for trace in traces if (bad := unsafe(trace))} == {}
    traced = {answer.of("x-mlflow-trace-id")[0]: answer for answer in answers if answer.of("x-mlflow-trace-id")}
    assert len(traced) > len(VALUES)
    assert {trace.info.trace_id: [trace.info.client_request_id] for trace in traces} == {
        trace_id: answer.of("x-request-id") for trace_id, answer in traced.items()
    }


def test_log_lines_stay_one_line(app: RunningApp) -> None:
    """The ids on a log record never start another line and never reach a terminal's controls."""
    answers = [exchange(app, Sent(b"/log", tuple((name, value) for name in IDENTITY))) for value in VALUES]

    lines = [answer.body.decode() for answer in answers if answer.status == 200]
    assert len(lines) > len(VALUES) / 2
    for line in lines:
        assert re.fullmatch(r"hello\|[^|]+\|[^|]+\|[^|]+\|tr-[0-9a-f]{32}\|end\n", line)
        assert is_safe(line.removesuffix("\n"))
