"""A body's way through a request's trace to the encoded bytes, and the assertions on it."""

from __future__ import annotations

import functools
import gc
import json
import re
import resource
import sys
import time
import tracemalloc
from dataclasses import dataclass

import mlflow
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlflow_middleware import asgi, mlflow_bridge
from mlflow_middleware._internal import guard
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request_trace import RequestTrace
from mlflow_middleware.settings import Settings
from tests.generators import MARKER, Asked, Sample
from tests.messages import http

MAX_MEMORY, MEMORY_AT_REST = 250, 1_000_000
"""Bytes that Python may allocate for a trace at its peak: a multiple of ``max_body_bytes``, and a constant."""

LARGE = 5000
"""Size of a body from which on its memory is measured, which takes time; that of an encoded one always is."""

MAX_PENDING = 400_000
"""Bytes that a request without a body may count for while it is pending."""

MAX_SECONDS = 5.0
"""CPU time that a trace may take while Python's allocations are traced."""

MAX_SENT, SENT_AT_REST = 50, 20_000
"""Bytes of an encoded trace: a multiple of ``max_body_bytes``, and a constant."""

MAX_RESIDENT_GROWTH = 300
"""MiB that the process may grow by, libraries in C and hypothesis included."""

MAX_CALLS = 4_000
"""Calls of functions that a request without a body may take from start to end, which is how long it holds the event
loop: about twice as many as the largest request within the limits takes."""

CHUNK = 8192
"""Bytes of a body in one chunk."""


@dataclass
class Worst:
    """The highest values so far.

    Attributes:
        seconds: CPU time of one body.
        slowest: That body.
        memory: Bytes of one body, in multiples of its limit or of 64 KiB, whichever is more.
        sent: Bytes of one encoded trace, in the same multiples.
        calls: Calls of functions that one request without a body took.
    """

    seconds: float = 0.0
    slowest: Sample | None = None
    memory: float = 0.0
    sent: float = 0.0
    calls: int = 0

    def see(self, sample: Sample, seconds: float, memory: float, sent: float) -> None:
        """Record another body."""
        if seconds > self.seconds:
            self.seconds, self.slowest = seconds, sample
        self.memory = max(self.memory, memory)
        self.sent = max(self.sent, sent)


class Way:
    """Sends bodies all the way, without a server at the end.

    Attributes:
        worst: The highest values so far.
    """

    def __init__(self) -> None:
        self.worst = Worst()
        self._finished: list[mlflow_bridge.PendingTrace] = []
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        mlflow_bridge.tracing.start(lambda uri: True, self._finished.append, None)
        self.send(Sample(b'{"a": 1}', "application/json"))  # imports, caches
        self._resident = resident()

    def send(self, sample: Sample) -> tuple[bytes, bytes]:
        """Encode the trace of a request whose body is echoed: its spans and its info."""
        settings = settings_of(sample.limit)
        headers = {"content-type": sample.content_type, "content-encoding": sample.encoding}
        trace = RequestTrace.open(Exchange("POST", "/echo", headers, sample.query), settings)
        chunks = [sample.data[start : start + CHUNK] for start in range(0, len(sample.data), CHUNK)]
        for chunk in chunks:
            trace.received(chunk)
        trace.response_started(200, sample.content_type, sample.encoding)
        for chunk in chunks:
            trace.sent(chunk)
        trace.last_byte()
        trace.finish()
        encoded = EncodedTrace.encode(self._finished.pop())
        return encoded.otlp, encoded.info

    def check(self, sample: Sample) -> None:
        """Send a body and check all assertions."""
        guard.failures.clear()
        if len(sample.data) > LARGE or sample.encoding:
            tracemalloc.start()
        began = time.process_time()
        full = gc.get_stats()[2]["collections"]
        otlp, info = self.send(sample)
        full = gc.get_stats()[2]["collections"] - full
        seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        unit = max(sample.limit, 1)
        self.worst.see(sample, seconds, peak / max(unit, 65536), (len(otlp) + len(info)) / max(unit, 65536))

        assert not guard.failures, f"an exception: {dict(guard.failures)}"
        assert peak <= MAX_MEMORY * unit + MEMORY_AT_REST, f"{peak} bytes at once"
        assert full <= 1, f"{full} full garbage collections"  # one may be due because of hypothesis' own objects
        assert seconds <= MAX_SECONDS, f"{seconds:.1f} s of CPU"
        assert len(otlp) + len(info) <= MAX_SENT * unit + SENT_AT_REST, f"{len(otlp) + len(info)} bytes to send"
        ExportTraceServiceRequest.FromString(otlp)
        json.loads(info)
        if sample.is_secret:
            leak = _MARKER.search(otlp) or _MARKER.search(info)
            assert not leak, f"the secret is in the trace: … {leak.string[max(0, leak.start() - 200) : leak.end()]!r}"

    def check_request(self, asked: Asked) -> None:
        """Start and end a request, and check that it holds the event loop for a bounded number of calls."""
        guard.failures.clear()
        calls = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        settings = settings_of(LARGE)
        scope = http(asked.path, *asked.headers, query=asked.query)
        tracemalloc.start()
        sys.setprofile(count)
        trace = RequestTrace.open(asgi.exchange_of(scope), settings)
        trace.response_started(200)
        trace.last_byte()
        trace.finish()
        sys.setprofile(None)
        pending = self._finished.pop()
        size = pending.size
        encoded = EncodedTrace.encode(pending)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        self.worst.calls = max(self.worst.calls, calls)
        assert not guard.failures, f"an exception: {dict(guard.failures)}"
        assert calls <= MAX_CALLS, f"{calls} calls"
        assert size <= MAX_PENDING, f"{size} bytes wait"
        assert peak <= MEMORY_AT_REST * 10, f"{peak} bytes at once"
        assert len(encoded.otlp) + len(encoded.info) <= MAX_SENT * LARGE + SENT_AT_REST
        ExportTraceServiceRequest.FromString(encoded.otlp)
        json.loads(encoded.info)

    def check_growth(self) -> None:
        """Check that the process has not grown."""
        grown = resident() - self._resident
        assert grown <= MAX_RESIDENT_GROWTH, f"the process has grown by {grown} MiB"


_NOTHING = rb"(?:\x00|\\u0000|\xef\xbf\xbd)*"
_MARKER = re.compile(_NOTHING.join(bytes([byte]) for byte in MARKER[:8].encode()))
"""Return the secret, also as UTF-16 or -32 that was decoded wrongly."""


@functools.cache
def settings_of(limit: int) -> Settings:
    """Return the default settings with this ``max_body_bytes``."""
    return Settings(max_body_bytes=limit)


def resident() -> int:
    """Return the peak of the MiB that this process had resident."""
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit // 1024
