"""The pytest fixture ``captured_traces``, which pytest discovers through an entry point.

Every start of pytest imports this module, so it imports MLflow only when a test uses the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow.entities import Trace


@pytest.fixture
def captured_traces() -> Iterator[list[Trace]]:
    """Yield the traces of this test's requests, in order of completion; nothing is sent to a server."""
    from mlflow_middleware import testing

    with testing.captured_traces() as traces:
        yield traces
