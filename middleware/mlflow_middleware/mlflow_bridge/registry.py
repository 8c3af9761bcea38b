"""The traces in flight: MLflow's registry, and the requests that are not registered there."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from mlflow.environment_variables import MLFLOW_TRACE_TIMEOUT_SECONDS
from mlflow.tracing import trace_manager
from mlflow.tracing.trace_manager import InMemoryTraceManager

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.root import Root

MAX_IN_FLIGHT = 100_000
"""Maximum number of traces in flight in one process; beyond that the oldest are dropped, to bound unended roots."""

in_flight: dict[int, Root] = {}
"""The roots of requests by OpenTelemetry's trace id, until nothing more can come."""

guests: dict[int, int] = {}
"""Number of other requests that add spans to a request in flight, by OpenTelemetry's trace id."""


def guest_came(otel_id: int) -> None:
    """Keep a request in flight until its guest leaves; call this under MLflow's lock."""
    guests[otel_id] = guests.get(otel_id, 0) + 1


def guest_left(otel_id: int) -> None:
    """Undo `guest_came`; call this under MLflow's lock."""
    if (left := guests.pop(otel_id, 1) - 1) > 0:
        guests[otel_id] = left


def add(root: Root) -> None:
    """Register a root, so that spans that begin inside its request find it."""
    in_flight[root.record.ids.trace_id] = root
    if len(in_flight) > MAX_IN_FLIGHT:
        in_flight.pop(next(iter(in_flight)), None)


def register(trace_id: str, otel_id: int, trace: object) -> None:
    """Register a trace with MLflow; call this under MLflow's lock."""
    manager = InMemoryTraceManager.get_instance()
    manager._traces[trace_id] = trace
    manager._otel_id_to_mlflow_trace_id[otel_id] = trace_id


def unregister(trace_id: str, otel_id: int) -> None:
    """Unregister a trace from MLflow; call this under MLflow's lock."""
    manager = InMemoryTraceManager.get_instance()
    manager._traces.pop(trace_id, None)
    manager._otel_id_to_mlflow_trace_id.pop(otel_id, None)


def trace_id_of(manager: InMemoryTraceManager, otel_id: int) -> str | None:
    """Return MLflow's id of a trace in flight that gets another span."""
    with manager._lock:
        if root := in_flight.get(otel_id):
            root.take_child()
        trace_id: str | None = manager.get_mlflow_trace_id_from_otel_id(otel_id)
        return trace_id


def is_in_flight(manager: InMemoryTraceManager, otel_id: int) -> bool:
    """Return whether a trace is in flight; materialize a request's."""
    with manager._lock:
        return _materialized(otel_id) or manager.get_mlflow_trace_id_from_otel_id(otel_id) is not None


def _materialized(trace_id: object) -> bool:
    """Create MLflow's objects for a request in flight, given MLflow's or OpenTelemetry's trace id.

    Returns:
        Whether there is such a request.
    """
    try:
        otel_id = int(trace_id[3:], 16) if isinstance(trace_id, str) else trace_id
    except ValueError:
        return False
    root = in_flight.get(otel_id) if isinstance(otel_id, int) else None
    if root is not None:
        root.materialize()
    return root is not None


class _InFlight(dict[str, Any]):
    """MLflow's registry of traces in flight, without its limits of 1,000 traces and one hour.

    It also finds requests that are not materialized.
    """

    def get(self, trace_id: str, default: Any = None) -> Any:
        found = super().get(trace_id)
        if found is None and _materialized(trace_id):
            found = super().get(trace_id)
        return default if found is None else found

    def __setitem__(self, trace_id: str, trace: Any) -> None:
        super().__setitem__(trace_id, trace)
        if len(self) > MAX_IN_FLIGHT:
            oldest = next(iter(self))
            del self[oldest]
            InMemoryTraceManager.get_instance()._otel_id_to_mlflow_trace_id.pop(int(oldest[-32:], 16), None)


def keep_traces_in_flight() -> None:
    """Install `_InFlight`, unless the operator has configured MLflow to end traces after a timeout."""
    original = trace_manager.get_trace_cache_with_timeout

    @functools.wraps(original)
    def registry() -> Any:
        return original() if MLFLOW_TRACE_TIMEOUT_SECONDS.get() else _InFlight()

    trace_manager.get_trace_cache_with_timeout = registry
    manager = InMemoryTraceManager.get_instance()
    with manager._lock:
        kept, manager._traces = manager._traces, registry()
        for trace_id, trace in kept.items():
            manager._traces[trace_id] = trace
