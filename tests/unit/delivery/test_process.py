"""State that exists once in each process: every trace is counted, and a loss is not silent."""

from __future__ import annotations

import _thread
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlflow_middleware.delivery import process
from mlflow_middleware.delivery.process import Delivery
from tests.unit.delivery.fakes import SIZE, finished


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_each_excluded_request_is_counted() -> None:
    """Also if those of many threads end at once."""
    delivery = Delivery(SIZE, 0.0, paused=True)

    def leave_out(reason: str) -> None:
        for _ in range(20_000):
            delivery.leave_out(reason)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave_out, ["head", "sampled_out"] * 4))

    assert delivery.stats().left_out == {"head": 80_000, "sampled_out": 80_000}
    assert delivery.stats().sampled_out == 80_000


@pytest.mark.usefixtures("frequent_switches")
def test_each_rejected_trace_is_counted() -> None:
    """Also if those of many threads are rejected at once."""
    delivery = Delivery(SIZE - 1, 0.0, paused=True)

    def fill(count: int) -> None:
        for _ in range(count):
            delivery.put(finished())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, [5000] * 8))
    assert delivery.stats().dropped == {"queue full": 40_000}


def test_a_process_that_cannot_start_a_thread_logs_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container at its limit of threads."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    monkeypatch.setattr(process, "STUCK", -1.0)  # a trace that has just arrived has waited long enough
    Delivery(10 * SIZE, 0.0).put(finished())

    assert "the thread that sends them does not run" in caplog.text


def test_traces_during_a_shutdown_get_the_rest_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes on while a signal is delivered may answer more requests; then the time is over."""
    delivery = Delivery(10 * SIZE, 60.0)
    given: list[float] = []

    def deliver(timeout: float) -> bool:
        given.append(timeout)
        if len(given) == 1:
            delivery.put(finished())
        return True

    monkeypatch.setattr(delivery, "start_thread", lambda: None)
    monkeypatch.setattr(delivery, "deliver", deliver)
    for _ in range(3):
        delivery.shutdown(last=True)

    first, second, third = given
    assert first >= second > 0
    assert third == 0
