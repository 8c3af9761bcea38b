"""Fixtures: the traces of a test, captured in this process, and no failure of tracing that nobody looks at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mlflow.entities import Trace

from mlflow_middleware._internal import guard
from mlflow_middleware.testing import captured_traces


@pytest.fixture
def traces() -> Iterator[list[Trace]]:
    """The traces that the test's requests make; nothing is sent. That tracing itself fails, fails the test."""
    before = guard.failures.copy()
    with captured_traces() as captured:
        yield captured
    assert guard.failures == before
