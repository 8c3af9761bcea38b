"""The replacement of MLflow's own export: each finished trace of the process goes to a capture, or to our delivery."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture.spans import redact_with
from mlflow_middleware.delivery import exits, hosts
from mlflow_middleware.delivery.collector import ToCollector, delivery_type
from mlflow_middleware.delivery.process import MAX_FLUSH, Delivery
from mlflow_middleware.delivery.rest import is_local, printable, root_cause, serves
from mlflow_middleware.settings import Settings

logger = logging.getLogger("mlflow_middleware.delivery")

_delivery: Delivery | None = None
_is_ours = False
_captures: list[Callable[[mlflow_bridge.PendingTrace], None]] = []
_recent: deque[str] = deque(maxlen=1000)
_lock = threading.RLock()


def start(settings: Settings) -> None:
    """Replace MLflow's export by our delivery; the first call of a process decides its settings."""
    global _delivery, _is_ours  # one for each process, as MLflow's tracer provider is
    with _lock:
        if _delivery is None:
            delivery = delivery_type(settings.delivery)(
                settings.max_queue_bytes,
                settings.shutdown_timeout,
                settings.spool_dir,
                settings.max_spool_bytes,
                paused=is_capturing(),
                on_begin=functools.partial(exits.expect, _shutdown, settings.handle_signals),
            )
            _delivery, _is_ours = delivery, settings.delivery != "mlflow"
            atexit.register(exits.finish, _shutdown)
            hosts.join(_begin, _relieve)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_after_fork)
            redact_with(settings.redactor if settings.redact_spans else None, settings.content)
            if line := mlflow_bridge.found.summary:
                logger.warning("MLflow is not fully supported: %s", line)
            mlflow_bridge.tracing.start(_accepts, _put, _Flush())
            mlflow_bridge.tracing.rebuild()
            _prepare_store()
            if mlflow_bridge.found.level is mlflow_bridge.Level.EVERYTHING:
                delivery.start_thread()  # it also resolves the environment's experiment for MLflow's own exporter


def _prepare_store() -> None:
    uri = mlflow_bridge.client.tracking_uri()
    if not _serves(uri) or is_capturing() or not is_local(uri) or isinstance(_delivery, ToCollector):
        return
    from mlflow_middleware.mlflow_bridge import local_store

    try:
        local_store.prepare(uri)
    except Exception as error:  # the sender tries again, and reports it when a trace waits
        why = f"MLFLOW_TRACKING_URI={printable(uri)} cannot be used ({root_cause(error)})"
        logger.warning("traces cannot be sent yet: %s", why)


def current() -> Delivery | None:
    """Return the delivery of this process; None before it has started."""
    delivery = _delivery
    if delivery is None or delivery.pid == (pid := os.getpid()):
        return delivery
    return _forked(delivery, pid)


def _forked(delivery: Delivery, pid: int) -> Delivery:
    global _delivery  # noqa: PLW0603 - one for each process
    _delivery = delivery.of_process(pid)
    return _delivery


def _after_fork() -> None:
    """Release the parent's resources at once. Not every fork calls this: uWSGI forks in C."""
    current()
    exits.forget_signals()


def _shutdown() -> None:
    if delivery := current():
        delivery.shutdown(last=True)


@guarded
def _begin() -> None:
    if delivery := current():
        delivery.start_thread()


@guarded
def _relieve() -> None:
    if delivery := current():
        delivery.relieve()


@contextmanager
def capturing(put: Callable[[mlflow_bridge.PendingTrace], None]) -> Iterator[None]:
    """Pass every trace of the process that ends inside the block to ``put``, instead of any delivery; send nothing.

    Args:
        put: Takes a finished trace; it must not raise. It gets the trace once more, possibly after the block, if a span
            ended after the root. Of nested captures, only the innermost gets the trace.

    Raises:
        RuntimeError: The version of MLflow is not supported.
    """
    if mlflow_bridge.found.level is not mlflow_bridge.Level.EVERYTHING:
        raise RuntimeError(f"traces cannot be captured: {mlflow_bridge.found.summary}")
    with _lock:
        _captures.append(put)
        mlflow_bridge.tracing.start(_accepts, _put, _Flush())
        _captures_changed()
    try:
        yield
    finally:
        with _lock:
            _captures.remove(put)
            _captures_changed()


def is_capturing() -> bool:
    """Return whether traces are currently captured."""
    return bool(_captures)


def _captures_changed() -> None:
    if not _serves(mlflow_bridge.client.tracking_uri()):
        mlflow_bridge.tracing.rebuild()  # the current exporter is MLflow's own
    if delivery := current():
        delivery.pause(is_capturing())


def _accepts(tracking_uri: str) -> bool:
    return is_capturing() or _serves(tracking_uri)


def _serves(tracking_uri: str) -> bool:
    return _is_ours and (serves(tracking_uri) or isinstance(_delivery, ToCollector))


def _put(trace: mlflow_bridge.PendingTrace) -> None:
    if _captures and not trace.supplement:
        trace.captured_by = _captures[-1]
    if trace.captured_by:
        trace.captured_by(trace)
    elif delivery := current():
        _recent.append(trace.trace_id)
        delivery.put(trace)


def is_recent(trace_id: str) -> bool:
    """Return whether this process has recently finished a trace, which will then soon be stored."""
    return trace_id in _recent


class _Flush:
    """The queue that ``mlflow.flush_trace_async_logging()`` flushes."""

    def flush(self, terminate: bool = False) -> bool:
        """Wait for a limited time; MLflow passes ``terminate``, which is ignored."""
        delivery = current()
        return delivery is None or delivery.flush(MAX_FLUSH)
