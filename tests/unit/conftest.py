"""Fixtures: the traces of a test, captured in this process; a failure of tracing fails the test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings
from mlflow.entities import Trace

from mlflow_middleware._internal import guard
from mlflow_middleware.request import defaults
from mlflow_middleware.testing import captured_traces

settings.register_profile("without time limits", deadline=None)
settings.load_profile("without time limits")


def pytest_collection_finish() -> None:
    """Take the thousands of collected tests out of each later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_middleware_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first middleware of a process decides for jobs, which belong to no request."""
    monkeypatch.setattr(defaults, "_known", [])


@pytest.fixture
def traces() -> Iterator[list[Trace]]:
    """The traces of the test's requests; nothing is sent. A failure of tracing fails the test."""
    before = guard.failures.copy()
    with captured_traces() as captured:
        yield captured
    assert guard.failures == before
