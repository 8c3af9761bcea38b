"""The figures in stored traces, including those written by other code."""

from __future__ import annotations

import pytest
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState

from mlflow_middleware.summaries import cost_of, tokens_of


def trace(**metadata: str) -> TraceInfo:
    """Return a stored trace."""
    given = {f"mlflow.trace.{name}": value for name, value in metadata.items()}
    return TraceInfo("tr-1", TraceLocation.from_experiment_id("0"), 0, TraceState.OK, trace_metadata=given)


def test_tokens_and_cost_are_read() -> None:
    """As MLflow writes them."""
    stored = trace(cost='{"total_cost": 0.5}', tokenUsage='{"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}')

    assert (cost_of(stored), tokens_of(stored)) == (0.5, {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})


@pytest.mark.parametrize(
    "written",
    [
        "",
        "x",
        "null",
        "[1]",
        '{"total_cost": NaN}',
        '{"total_cost": true}',
        "[" * 5000,
        f'{{"total_cost": 1{"0" * 400}}}',
    ],
    ids=["nothing", "text", "null", "list", "nan", "bool", "deep", "large"],
)
def test_an_invalid_cost_is_ignored(written: str) -> None:
    """One such trace does not break the summary of all."""
    assert (cost_of(trace(cost=written)), tokens_of(trace(tokenUsage=written))) == (None, {})
