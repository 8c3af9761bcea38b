"""The time of encoding: complete traces, not many ahead of the sender, and never for long while the app is busy."""

from __future__ import annotations

from typing import Any

import pytest

from mlflow_middleware.delivery.encoder import AHEAD, LATE_SPANS, MAX_ENCODING, MAX_GIVE_UP, MAX_STRETCH, Encoder
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.replies import RetryableError
from mlflow_middleware.delivery.stats import Stats
from tests.unit.delivery.fakes import SIZE, URI, Driven, finished


class Encoding:
    """An encoder in front of a destination."""

    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self.driven = Driven()
        self.clock = self.driven.clock
        self.stats = Stats()
        self.queue = TraceQueue(max_bytes, self.clock)
        self.encoder = Encoder(Ledger(self.queue, self.stats), self.clock, self.clock.sleep)
        self.destination = self.driven.destination

    def take(self, *traces: Any, everything: bool = False) -> list[str]:
        for trace in traces:
            assert self.queue.put(trace)
        uris = self.encoder.take(self.queue.take(), everything=everything)
        if uris:
            self.encoder.encode_for(self.destination, everything=everything)
        return uris

    @property
    def encoded(self) -> int:
        return len(self.destination.pending)


def test_a_complete_trace_is_encoded_at_once() -> None:
    """For its own server."""
    encoding = Encoding()

    assert encoding.take(finished("a", experiment_id="3")) == [URI]
    (trace,) = encoding.destination.pending
    assert (trace.trace_id, trace.experiment_id) == ("a", "3")
    assert encoding.encoder.waits_until() is None
    assert encoding.queue.bytes == trace.size


def test_a_trace_waits_for_its_late_spans() -> None:
    """Until the last has ended."""
    encoding = Encoding()
    trace = finished(complete=False)

    assert encoding.take(trace) == []
    assert encoding.encoder.waits_until() == encoding.clock.now + LATE_SPANS
    trace.complete = True
    encoding.take()
    assert encoding.encoded == 1


def test_a_trace_does_not_wait_forever_for_its_late_spans() -> None:
    """Later ones come in a supplement."""
    encoding = Encoding()
    encoding.take(finished(complete=False))

    encoding.clock.now += LATE_SPANS
    encoding.take()
    assert encoding.encoded == 1


@pytest.mark.parametrize("everything", [False, True])
def test_no_flush_or_exit_waits_for_late_spans(everything: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both send the trace without them."""
    encoding = Encoding()
    monkeypatch.setattr(encoding.queue, "_flushing", int(not everything))

    encoding.take(finished(complete=False), everything=everything)
    assert encoding.encoded == 1


def test_few_are_encoded_ahead() -> None:
    """More follow as these are sent."""
    encoding = Encoding()
    encoding.take(*(finished() for _ in range(AHEAD + 20)))
    assert encoding.encoded == AHEAD
    assert not encoding.encoder.has_work(encoding.destination)

    for _ in range(10):
        encoding.destination.pending.popleft()
    assert encoding.encoder.has_work(encoding.destination)
    encoding.take()
    assert encoding.encoded == AHEAD


def test_all_are_encoded_and_compressed_while_the_server_is_unreachable() -> None:
    """They must be small, and are spooled."""
    encoding = Encoding()
    encoding.destination.failed(RetryableError("away"), encoding.clock.now)
    encoding.take(*(finished() for _ in range(AHEAD + 20)))

    assert encoding.encoded == AHEAD + 20
    assert all(trace.info != b"{}" and trace.plain()[1] == b"{}" for trace in encoding.destination.pending)


def test_all_are_encoded_and_compressed_when_the_queue_fills_up() -> None:
    """Compressed traces take less room."""
    encoding = Encoding(max_bytes=(AHEAD + 30) * SIZE)
    encoding.take(*(finished() for _ in range(AHEAD + 20)))

    assert encoding.encoded == AHEAD + 20
    assert encoding.destination.pending[0].info != b"{}"
    assert encoding.queue.bytes == sum(trace.size for trace in encoding.destination.pending)


def test_a_trace_that_cannot_be_encoded_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """It is named, its room is released, and the others go on."""
    encoding = Encoding()
    encoding.take(finished("bad", on_encode=lambda: 1 / 0), finished("good"))

    assert encoding.stats.dropped == {"not encodable": 1}
    assert (encoding.queue.pending, encoding.encoded) == (1, 1)
    assert "trace dropped, not encodable: bad" in caplog.text


def test_the_app_may_run_while_traces_are_encoded() -> None:
    """After each period of encoding, for as long."""
    encoding = Encoding()

    def take_time() -> None:
        encoding.clock.now += 1.5 * MAX_STRETCH

    encoding.take(*(finished(on_encode=take_time) for _ in range(20)))
    assert encoding.encoded == 20
    assert encoding.clock.slept == [MAX_STRETCH] * 19


def test_encoded_traces_are_sent_before_the_rest_is_encoded() -> None:
    """After `MAX_ENCODING`."""
    encoding = Encoding()

    def take_long() -> None:
        encoding.clock.now += MAX_ENCODING / 2

    encoding.take(*(finished(on_encode=take_long) for _ in range(20)))
    assert encoding.encoded == 2
    assert encoding.encoder.has_work(encoding.destination)


def test_an_exit_encodes_all_without_a_pause() -> None:
    """If that takes long, without their bodies."""
    encoding = Encoding()

    def take_long() -> None:
        encoding.clock.now += MAX_GIVE_UP / 2

    traces = [finished(on_encode=take_long) for _ in range(AHEAD + 20)]
    encoding.take(*traces, everything=True)
    assert encoding.encoded == AHEAD + 20
    assert encoding.clock.slept == []
    assert [trace.forgotten for trace in traces] == [False] * 3 + [True] * (AHEAD + 17)
