"""The age of the oldest pending trace, wherever it is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mlflow_middleware._internal import clock
from mlflow_middleware.delivery.process import Delivery
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.standing import standing, with_spool
from mlflow_middleware.delivery.stats import Stats
from tests.unit.delivery.fakes import finished


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time, which tests change."""
    times = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: times[0])
    return times


def age(queue: TraceQueue, sender: Sender) -> float:
    return standing(Stats(), queue, sender, 0).oldest_waiting


def test_the_oldest_trace_is_found_in_queue_and_encoder(now: list[float]) -> None:
    """Its age grows; a younger one changes nothing; without traces there is no age."""
    queue = TraceQueue(1_000_000, lambda: now[0])
    sender = Sender(queue, Stats(), None)
    assert age(queue, sender) == 0

    queue.put(finished())
    now[0] += 5
    assert age(queue, sender) == 5

    sender.encoder._clock = lambda: now[0]
    sender.encoder.take(queue.take())
    now[0] += 2
    queue.put(finished())
    assert age(queue, sender) == 7


def test_a_trace_in_the_spool_is_as_old_as_its_file(tmp_path: Path) -> None:
    """An empty spool, or none, has no age."""
    delivery = Delivery(1_000_000, 1.0, tmp_path / "spool", 1_000_000, paused=True)
    assert (with_spool(delivery).oldest_waiting, with_spool(delivery).spool_bytes) == (0, 0)

    (tmp_path / "spool").mkdir()
    written = time.time_ns() - 60 * 10**9
    (tmp_path / "spool" / f"{written:020d}-{os.getpid()}-000000.experiment-1.otlp").write_bytes(b"x" * 10)
    (tmp_path / "spool" / "somebody-else's").write_bytes(b"x" * 10)
    stats = with_spool(delivery)
    assert (stats.spool_bytes, stats.max_spool_bytes) == (10, 1_000_000)
    assert 60 <= stats.oldest_waiting < 120

    assert Spool(tmp_path / "spool" / "nowhere", 10).measure() == (0, None)
