"""The fixture ``captured_traces`` for pytest, which finds it by itself.

Each start of pytest imports this module, and only a test that asks for the fixture imports MLflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow.entities import Trace


@pytest.fixture
def captured_traces() -> Iterator[list[Trace]]:
    """The traces that this test's requests make, in the order of their completion; nothing is sent to any server."""
    from mlflow_middleware import testing

    with testing.captured_traces() as traces:
        yield traces
