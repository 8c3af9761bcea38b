"""No tracing: requests pass through with their identity, and nothing of MLflow is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlflow_middleware.mlflow_bridge.interface import Entered, Left, RootSpan, Undo
from mlflow_middleware.trace.record import SpanIds, TraceRecord

can_discard = True


def start(accepts: Callable[[str], bool], put: Callable[[Any], None], queue: object) -> None:
    """See `Tracing`."""


def rebuild() -> None:
    """See `Tracing`."""


def flush(timeout: float) -> bool:
    """See `Tracing`."""
    return True


def open_root_span(
    record: TraceRecord, *, remote: SpanIds | None = None, adopt_remote: bool = False
) -> RootSpan | None:
    """See `Tracing`."""
    return None


def continue_trace(ids: SpanIds, experiment_id: str | None, *, keeps_words: bool = True) -> Undo | None:
    """See `Tracing`."""
    return None


class TracesInside:
    """See `Tracing`."""

    keeps_words = True

    def attach(self) -> Entered:
        """See `interface.TracesInside`."""
        return None

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        """See `interface.TracesInside`."""


def silence() -> Undo:
    """See `Tracing`."""
    return _nothing


def _nothing() -> None:
    pass


def leave(entered: Entered) -> Left:
    """See `Tracing`."""
    return None


def resume(left: Left) -> Entered:
    """See `Tracing`."""
    return None


def current_span() -> SpanIds | None:
    """See `Tracing`."""
    return None
