"""The guard: a failure of tracing is contained, logged once and always counted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest

from mlflow_middleware._internal import guard
from mlflow_middleware._internal.guard import guarded


@pytest.fixture(autouse=True)
def failures(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """The counts of this test only."""
    counts: Counter[tuple[str, str]] = Counter()
    monkeypatch.setattr(guard, "failures", counts)
    return counts


@guarded
def divide(number: int, by: int) -> float:
    """Divides."""
    return number / by


def test_a_guarded_function_works_as_before() -> None:
    """Arguments, result, name and docstring are the function's own."""
    assert divide(6, by=3) == 2
    assert (divide.__name__, divide.__doc__) == ("divide", "Divides.")


def test_a_failure_becomes_none(failures: Counter[tuple[str, str]]) -> None:
    """The caller goes on, and the failure is counted."""
    assert divide(1, by=0) is None
    assert failures == {("divide", "ZeroDivisionError"): 1}


def test_the_first_failure_of_each_kind_is_logged(
    caplog: pytest.LogCaptureFixture, failures: Counter[tuple[str, str]]
) -> None:
    """It has its traceback; later ones are only counted."""
    for _ in range(5):
        divide(1, by=0)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("mlflow_middleware", logging.ERROR)
    assert "tracing failed in 'divide'" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert "in divide" in caplog.text
    assert failures["divide", "ZeroDivisionError"] == 5


def test_another_kind_is_logged_again(caplog: pytest.LogCaptureFixture, failures: Counter[tuple[str, str]]) -> None:
    """A kind is a function and an exception type."""

    @guarded
    def other() -> None:
        raise ZeroDivisionError

    @guarded
    def raising(error: Exception) -> None:
        raise error

    divide(1, by=0)
    other()
    for error in (KeyError("a"), ValueError("b"), KeyError("c")):
        raising(error)

    assert len(caplog.records) == 4
    assert sorted(failures.values()) == [1, 1, 1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_exceptions_that_end_a_program_pass_through(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """Interrupts and cancellation are no failures of tracing."""

    @guarded
    def interrupted() -> None:
        raise error

    with pytest.raises(error):
        interrupted()
    assert caplog.records == []


def test_a_guarded_method_keeps_its_object() -> None:
    """Methods are guarded like functions, and reported under their class's name."""

    class Counting:
        count = 0

        @guarded
        def add(self, number: int) -> int:
            self.count += number
            return self.count

    counting = Counting()
    counting.add(2)
    assert counting.add(3) == 5
    assert counting.add("x") is None  # type: ignore[arg-type]
    ((where, _),) = guard.failures
    assert where.endswith("Counting.add")


def test_a_handler_without_a_stream_gets_the_line_all_the_same() -> None:
    """Such as a request-local proxy outside a request."""
    lines: list[str] = []

    class Own(logging.Handler):
        @property
        def stream(self) -> object:
            raise RuntimeError("outside of a request")

        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Own()
    guard.logger.addHandler(handler)
    try:
        guard.report("somewhere", ValueError("none"))
    finally:
        guard.logger.removeHandler(handler)

    assert [line.partition(":")[0] for line in lines] == ["tracing failed in 'somewhere'"]
