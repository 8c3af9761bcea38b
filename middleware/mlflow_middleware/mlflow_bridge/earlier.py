"""Which earlier trace the spans belong to that begin here."""

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
        ids: Its root.
        experiment_id: Where it is; None for the experiment that the environment names.
    """

    ids: SpanIds
    experiment_id: str | None


earlier: ContextVar[Earlier | None] = ContextVar("mlflow_middleware_earlier", default=None)


def mark(info: TraceInfo, span: Span) -> None:
    """Mark what begins with a span where it is a part of an earlier trace, whose info is stored and not to be sent."""
    known = earlier.get()
    if known and known.ids.trace_id == span.context.trace_id:
        info.trace_metadata[CONTINUED] = "true"
        if known.experiment_id:
            info.trace_location = TraceLocation.from_experiment_id(known.experiment_id)
