"""No tracing: requests pass through, each with its identity; nothing of MLflow is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlflow_middleware.mlflow_bridge.common import Common
from mlflow_middleware.mlflow_bridge.root_span import Describe, Entered, Left, RootSpan, SpanIds, Undo

can_discard = True


def start(accepts: Callable[[str], bool], put: Callable[[Any], None], queue: object) -> None:
    """See `Tracing`."""


def rebuild() -> None:
    """See `Tracing`."""


def flush(timeout: float) -> bool:
    """See `Tracing`."""
    return True


def open_root_span(
    name: str, describe: Describe, *, remote: SpanIds | None = None, adopt_remote: bool = False
) -> RootSpan | None:
    """See `Tracing`."""
    return None


def in_common(name: str, attributes: Mapping[str, object], tags: Mapping[str, str]) -> Common:
    """See `Tracing`."""
    return Common(name, attributes, tags)


class TracesInside:
    """See `Tracing`."""

    def attach(self) -> Entered:
        """See `root_span.TracesInside`."""
        return None

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        """See `root_span.TracesInside`."""


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
