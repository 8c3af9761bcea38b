"""The earlier trace that new spans in this context belong to."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from opentelemetry.sdk.trace import Span

from mlflow_middleware.trace.record import CONTINUED, SpanIds


class Earlier(NamedTuple):
    """An earlier trace.

    Attributes:
        ids: The ids of its root.
        experiment_id: The experiment; None for the one that the environment specifies.
    """

    ids: SpanIds
    experiment_id: str | None


earlier: ContextVar[Earlier | None] = ContextVar("mlflow_middleware_earlier", default=None)


def mark(info: TraceInfo, span: Span) -> None:
    """Mark the info of a span that is part of an earlier trace, whose own info is stored and not sent again."""
    known = earlier.get()
    if known and known.ids.trace_id == span.context.trace_id:
        info.trace_metadata[CONTINUED] = "true"
        if known.experiment_id:
            info.trace_location = TraceLocation.from_experiment_id(known.experiment_id)
