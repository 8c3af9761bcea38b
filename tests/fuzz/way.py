"""The way of a body: through a request's trace to the bytes that would be sent of it, and what must hold there."""

from __future__ import annotations

import functools
import json
import re
import resource
import sys
import time
import tracemalloc
from dataclasses import dataclass

import mlflow
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlflow_middleware import guard, mlflow_bridge
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request_trace import RequestTrace
from mlflow_middleware.settings import Settings
from tests.generators import MARKER, Sample

MAX_MEMORY, MEMORY_AT_REST = 250, 1_000_000
"""Bytes of Python's that a trace may take at its highest: a multiple of ``max_body_bytes``, and a constant."""

LARGE = 5000
"""Bytes of a body from which on its memory is watched; that of an encoded one always is. To watch takes time."""

MAX_SECONDS = 5.0
"""CPU time that a trace may take, while Python's allocations are watched."""

MAX_SENT, SENT_AT_REST = 50, 20_000
"""Bytes that may be sent of a trace: so many times ``max_body_bytes``, and some that always are."""

MAX_RESIDENT_GROWTH = 300
"""MiB that the process may grow by, libraries in C and hypothesis included."""

CHUNK = 8192
"""Bytes of a body that pass at once."""


@dataclass
class Worst:
    """The highest that was seen.

    Attributes:
        seconds: CPU time of one body.
        slowest: That body.
        memory: Bytes of one body, in multiples of its limit or of 64 KiB, whichever is more.
        sent: The same of what would be sent.
    """

    seconds: float = 0.0
    slowest: Sample | None = None
    memory: float = 0.0
    sent: float = 0.0

    def see(self, sample: Sample, seconds: float, memory: float, sent: float) -> None:
        """Another body."""
        if seconds > self.seconds:
            self.seconds, self.slowest = seconds, sample
        self.memory = max(self.memory, memory)
        self.sent = max(self.sent, sent)


class Way:
    """Takes bodies all the way, with no server at its end.

    Attributes:
        worst: The highest that was seen.
    """

    def __init__(self) -> None:
        self.worst = Worst()
        self._finished: list[mlflow_bridge.PendingTrace] = []
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        mlflow_bridge.tracing.start(lambda uri: True, self._finished.append, None)
        self.send(Sample(b'{"a": 1}', "application/json"))  # imports, caches
        self._resident = resident()

    def send(self, sample: Sample) -> tuple[bytes, bytes]:
        """What would be sent of a request with that body, which is echoed: its spans and its info."""
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
        """Send a body and see that all that must hold does."""
        guard.failures.clear()
        if len(sample.data) > LARGE or sample.encoding:
            tracemalloc.start()
        began = time.process_time()
        otlp, info = self.send(sample)
        seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        unit = max(sample.limit, 1)
        self.worst.see(sample, seconds, peak / max(unit, 65536), (len(otlp) + len(info)) / max(unit, 65536))

        assert not guard.failures, f"an exception: {dict(guard.failures)}"
        assert peak <= MAX_MEMORY * unit + MEMORY_AT_REST, f"{peak} bytes at once"
        assert seconds <= MAX_SECONDS, f"{seconds:.1f} s of CPU"
        assert len(otlp) + len(info) <= MAX_SENT * unit + SENT_AT_REST, f"{len(otlp) + len(info)} bytes to send"
        ExportTraceServiceRequest.FromString(otlp)
        json.loads(info)
        if sample.is_secret:
            leak = _MARKER.search(otlp) or _MARKER.search(info)
            assert not leak, f"the secret is in the trace: … {leak.string[max(0, leak.start() - 200) : leak.end()]!r}"

    def check_growth(self) -> None:
        """See that the process has not grown."""
        grown = resident() - self._resident
        assert grown <= MAX_RESIDENT_GROWTH, f"the process has grown by {grown} MiB"


_NOTHING = rb"(?:\x00|\\u0000|\xef\xbf\xbd)*"
_MARKER = re.compile(_NOTHING.join(bytes([byte]) for byte in MARKER[:8].encode()))
"""The secret, also in UTF-16 or -32 that was taken for something else."""


@functools.cache
def settings_of(limit: int) -> Settings:
    """The default settings but for that ``max_body_bytes``."""
    return Settings(max_body_bytes=limit)


def resident() -> int:
    """MiB that this process had resident at its highest."""
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit // 1024
