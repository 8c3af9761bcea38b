"""What there is once in each process: every trace is counted, and one that is not delivered is not silent."""

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
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_each_request_that_nobody_wants_is_counted() -> None:
    """Also where those of many threads end at once."""
    delivery = Delivery(SIZE, 0.0, paused=True)

    def leave_out(reason: str) -> None:
        for _ in range(20_000):
            delivery.leave_out(reason)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave_out, ["head", "sampled_out"] * 4))

    assert delivery.stats().left_out == {"head": 80_000, "sampled_out": 80_000}
    assert delivery.stats().sampled_out == 80_000


@pytest.mark.usefixtures("frequent_switches")
def test_each_trace_that_finds_no_room_is_counted() -> None:
    """Also where requests of many threads are turned away at once."""
    delivery = Delivery(SIZE - 1, 0.0, paused=True)

    def fill(count: int) -> None:
        for _ in range(count):
            delivery.put(finished())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, [5000] * 8))
    assert delivery.stats().dropped == {"queue full": 40_000}


def test_a_process_in_which_no_thread_can_begin_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a container has as many as it may have."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    monkeypatch.setattr(process, "STUCK", -1.0)  # a trace that has just come has waited long enough
    Delivery(10 * SIZE, 0.0).put(finished())

    assert "the thread that sends them does not run" in caplog.text


def test_what_comes_during_a_shutdown_has_the_rest_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes on while a signal is delivered may answer more; then it is over."""
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
