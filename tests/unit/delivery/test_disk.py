"""A stalled disk: only an exit waits for it, and not for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_middleware.delivery.disk import Disk
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.spool import Spool, SpoolFile
from mlflow_middleware.delivery.stats import Stats
from tests.unit.delivery.fakes import finished


class Stalled(Spool):
    """A spool whose disk does not respond until the test is over."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 1_000_000)
        self.released = threading.Event()

    def claim(self) -> SpoolFile | None:
        self.released.wait()
        return None

    def write_encoded(self, data: bytes, experiment_id: str | None) -> str:
        self.released.wait()
        return "name"


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[Stalled]:
    spool = Stalled(tmp_path)
    yield spool
    spool.released.set()


def test_an_exit_does_not_wait_for_a_stalled_disk(stalled: Stalled) -> None:
    """Its time is over; traces that could not be written are lost, and count as pending."""
    queue = TraceQueue(1_000_000)
    assert queue.put(finished())

    Sender(queue, Stats(), stalled).give_up(time.monotonic())

    assert queue.pending == 1


def test_pending_jobs_are_done_in_order() -> None:
    """One after the other, and the exit waits for all of them."""
    done: list[int] = []
    disk = Disk(bool)
    for number in range(100):
        disk.run(lambda number=number: done.append(number))  # type: ignore[misc]

    assert disk.wait(time.monotonic() + 30)
    assert done == list(range(100))


def test_a_failure_ends_nothing() -> None:
    """The next job is done all the same."""
    done: list[int] = []
    disk = Disk(bool)
    disk.run(lambda: 1 / 0)
    disk.run(lambda: done.append(1))

    assert disk.wait(time.monotonic() + 30)
    assert done == [1]
