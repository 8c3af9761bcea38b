"""MLflow's registry of traces in flight."""

from __future__ import annotations

import functools
from typing import Any

from mlflow.environment_variables import MLFLOW_TRACE_TIMEOUT_SECONDS
from mlflow.tracing import trace_manager
from mlflow.tracing.trace_manager import InMemoryTraceManager

from mlflow_middleware.mlflow_bridge import plain_root
from mlflow_middleware.mlflow_bridge.plain_root import MAX_IN_FLIGHT


def trace_id_of(manager: InMemoryTraceManager, otel_id: int) -> str | None:
    """MLflow's id of a trace in flight, to which a span is added."""
    with manager._lock:
        if root := plain_root.in_flight.get(otel_id):
            root.take_child()
        trace_id: str | None = manager.get_mlflow_trace_id_from_otel_id(otel_id)
        return trace_id


def is_in_flight(manager: InMemoryTraceManager, otel_id: int) -> bool:
    """Whether a trace is in flight; one whose root is plain data is made into MLflow's objects."""
    with manager._lock:
        return plain_root.made_of(otel_id) or manager.get_mlflow_trace_id_from_otel_id(otel_id) is not None


class _InFlight(dict[str, Any]):
    """MLflow's registry of traces in flight, without its limits of 1,000 traces and one hour.

    It finds requests that are plain data, too.
    """

    def get(self, trace_id: str, default: Any = None) -> Any:
        found = super().get(trace_id)
        if found is None and plain_root.made_of(trace_id):
            found = super().get(trace_id)
        return default if found is None else found

    def __setitem__(self, trace_id: str, trace: Any) -> None:
        super().__setitem__(trace_id, trace)
        if len(self) > MAX_IN_FLIGHT:
            oldest = next(iter(self))
            del self[oldest]
            InMemoryTraceManager.get_instance()._otel_id_to_mlflow_trace_id.pop(int(oldest[-32:], 16), None)


def keep_traces_in_flight() -> None:
    """Put `_InFlight` in place, unless the operator has asked MLflow to end traces after a time."""
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
