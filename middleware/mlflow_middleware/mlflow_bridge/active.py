"""Runs, models and destinations that the app chooses inside a request, and their effect on the request's trace.

MLflow links a trace to those that are active when its root begins, and a request's root begins before the app's code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow.tracing import provider
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracking import fluent

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.mlflow_bridge import context, registry
from mlflow_middleware.mlflow_bridge.materialize import root_of
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.record import NOTHING, Surroundings

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.root import Root


def watch() -> None:
    """Observe the activation of runs and models; a second call does nothing."""
    _after_init(fluent.ActiveRun, _run_started)
    _after_init(fluent.ActiveModel, _model_set)
    _watch_destinations()


def _watch_destinations() -> None:
    """Observe ``set_destination(..., context_local=True)``.

    Inside a request the destination applies to that request only; otherwise the thread would keep it for later ones.
    """
    registry_ = provider._MLFLOW_TRACE_USER_DESTINATION
    original = registry_.set

    @functools.wraps(original)
    def choose(value: Any, context_local: bool = False) -> None:
        if not (context_local and _destination_set(value)):
            original(value, context_local)

    registry_.set = choose


@guarded
def _destination_set(destination: Any) -> bool:
    """Apply a destination to the current request; return whether there is one."""
    experiment_id = getattr(destination, "experiment_id", None)
    root = _root_here() if experiment_id else None
    if root:
        direct(root, str(experiment_id))
    return root is not None


def direct(root: Root, experiment_id: str) -> None:
    """Send a request's trace to an experiment that the app has chosen inside."""
    if root.is_recording and not root.is_shared:
        root.record.experiment_id, root.record.is_directed = experiment_id, True
        if root.objects:
            root.objects.go_to(experiment_id)


def _after_init(cls: Any, callback: Callable[[Any], None]) -> None:
    original = cls.__init__
    if hasattr(original, "replaced_by_mlflow_middleware"):
        return

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        callback(self)

    init.replaced_by_mlflow_middleware = True  # type: ignore[attr-defined]
    cls.__init__ = init


@guarded
def _run_started(run: Any) -> None:
    if root := _root_here():
        _link(root, keys.SOURCE_RUN, run.info.run_id)
        destination = getattr(provider._MLFLOW_TRACE_USER_DESTINATION.get(), "experiment_id", None)
        if not destination:
            direct(root, str(run.info.experiment_id))


@guarded
def _model_set(model: Any) -> None:
    if root := _root_here():
        _link(root, keys.MODEL_ID, model.model_id)


def _link(root: Root, key: str, value: str) -> None:
    record = root.record
    known = record.surroundings or Surroundings(NOTHING, NOTHING, None)
    record.surroundings = Surroundings(known.tags, {**known.metadata, key: value}, known.client_request_id)
    record.is_changed = True


def _root_here() -> Root | None:
    """Return the root of the request that the current code runs in, if any."""
    current = context.current_span()
    if current is None:
        return None
    if root := registry.in_flight.get(current.trace_id):
        return root
    manager = InMemoryTraceManager.get_instance()
    trace = manager._traces.get(manager.get_mlflow_trace_id_from_otel_id(current.trace_id))
    return next(filter(None, map(root_of, list(trace.span_dict.values()))), None) if trace else None
