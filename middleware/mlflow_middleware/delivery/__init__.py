"""From a finished trace to the server, for the whole process.

``start()`` puts it in the place of MLflow's own export; from then on every trace of the process takes this way,
those of the middleware and those that the app opens itself.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.rest import serves
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.spooling import LOG_INTERVAL
from mlflow_middleware.delivery.stats import Stats
from mlflow_middleware.guard import report
from mlflow_middleware.settings import Settings

__all__ = ["Stats", "capturing", "flush", "is_capturing", "sampled_out", "shutdown", "start", "stats"]

MAX_FLUSH = 60.0
"""Seconds that ``mlflow.flush_trace_async_logging()``, which has no time limit of its own, waits at most."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Delivery:
    """The queue of this process, its sender, and what became of the traces.

    Args:
        max_queue_bytes: What may wait for the server.
        shutdown_timeout: Seconds that an exit may take.
        spool_dir: Where traces are kept while the server is away; None keeps them in memory.
        max_spool_bytes: What the spool may take.
    """

    _sender: Sender

    def __init__(
        self, max_queue_bytes: int, shutdown_timeout: float, spool_dir: Path | None = None, max_spool_bytes: int = 0
    ) -> None:
        self._max_queue_bytes = max_queue_bytes
        self._shutdown_timeout = shutdown_timeout
        self._spool = Spool(spool_dir, max_spool_bytes) if spool_dir else None
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)
        atexit.register(self.shutdown)

    def _begin(self) -> None:
        """Fresh locks, an empty queue and no thread: at the start, and in a forked child."""
        self._queue = TraceQueue(self._max_queue_bytes)
        self._stats = Stats()
        if hasattr(self, "_sender"):
            self._sender.abandon()
        self._sender = Sender(self._queue, self._stats, self._spool)
        self.pause(_captures)
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()
        self._exit_by: float | None = None
        self._full_logged_at = float("-inf")

    def put(self, trace: mlflow_bridge.FinishedTrace) -> None:
        """Take a finished trace; microseconds, never blocks."""
        if not self._queue.put(trace):
            trace.forget_contents()
            if not trace.supplement:
                self._full()
        elif self._thread is None or not self._thread.is_alive():
            self.start_thread()
        self._exit_by = None

    def start_thread(self) -> None:
        """Start the sender, if this process has none yet."""
        if _captures or sys.is_finalizing():  # a trace that ends with the last of its objects: none would begin
            return
        with self._thread_lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._sender.run, name="mlflow-middleware-sender", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is exiting: `flush` does the work
                    return
                self._thread = thread

    def flush(self, timeout: float | None) -> bool:
        """Wait until all that was put is delivered, spooled or refused.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Returns:
            Whether nothing waits any more.
        """
        if _captures:  # nothing is sent meanwhile, and what is captured does not wait
            return True
        if self._queue.pending:
            self.start_thread()
        elif not mlflow_bridge.tracing.flush(MAX_FLUSH if timeout is None else timeout):
            return False
        if self._queue.pending and self._thread is None:
            self._sender.work_until(time.monotonic() + (MAX_FLUSH if timeout is None else timeout))
        return self._queue.flush(timeout)

    def shutdown(self) -> None:
        """Within ``shutdown_timeout``, deliver what waits; spool or count the rest, and say so.

        At the end of the process, and at a server's shutdown hook; new traces may come after it.
        """
        if _captures:
            return
        now = time.monotonic()
        exit_by = self._exit_by
        if exit_by is None:
            self._exit_by = exit_by = now + self._shutdown_timeout
        elif exit_by < now:
            return
        if not self.flush(exit_by - now):
            try:
                self._sender.give_up()
            except Exception as error:
                report("an exit", error)
        self._exit_by = float("-inf")
        stats = self.stats()
        if stats.waiting:
            stats.drop("not delivered before the exit", stats.waiting)
            stats.waiting = 0
        if stats != Stats():
            logger.log(logging.WARNING if stats.dropped else logging.INFO, "at exit: %s", stats)

    def pause(self, paused: object) -> None:
        """Let the sender rest, or go on."""
        (self._sender.may_work.clear if paused else self._sender.may_work.set)()

    def sampled_out(self) -> None:
        """Count a trace that is not kept."""
        self._stats.sampled_out += 1

    def stats(self) -> Stats:
        """The counts as they stand."""
        return replace(self._stats, waiting=self._queue.pending, dropped=dict(self._stats.dropped))

    def _full(self) -> None:
        self._stats.drop("queue full")
        now = time.monotonic()
        if now - self._full_logged_at >= LOG_INTERVAL:
            self._full_logged_at = now
            logger.warning(
                "the queue of traces is full (%d bytes), the newest are dropped: %d so far",
                self._max_queue_bytes,
                self._stats.dropped["queue full"],
            )


_delivery: Delivery | None = None
_is_ours = False
_captures: list[Callable[[mlflow_bridge.FinishedTrace], None]] = []
_start_lock = threading.RLock()


def start(settings: Settings) -> None:
    """Put our delivery in the place of MLflow's export; the first call of a process decides its settings."""
    global _delivery, _is_ours  # one for each process, as MLflow's tracer provider is
    with _start_lock:
        if _delivery is None:
            delivery = Delivery(
                settings.max_queue_bytes, settings.shutdown_timeout, settings.spool_dir, settings.max_spool_bytes
            )
            _delivery, _is_ours = delivery, settings.delivery == "auto"
            if line := mlflow_bridge.found.summary:
                logger.warning(line)
            mlflow_bridge.tracing.start(_accepts, _put, _Flush())
            mlflow_bridge.tracing.rebuild()
            if mlflow_bridge.found.level is mlflow_bridge.Level.EVERYTHING:
                delivery.start_thread()  # which also tells MLflow's own exporter what the environment's experiment is


@contextmanager
def capturing(put: Callable[[mlflow_bridge.FinishedTrace], None]) -> Iterator[None]:
    """Hand every trace of the process that ends inside to ``put``, in place of any delivery; nothing is sent meanwhile.

    Args:
        put: Takes a finished trace, and once more, also later, when a span has ended after its root; never raises. Of
            nested captures the innermost is asked.

    Raises:
        RuntimeError: MLflow is of a version that is not known here.
    """
    if mlflow_bridge.found.level is not mlflow_bridge.Level.EVERYTHING:
        raise RuntimeError(f"traces cannot be captured: {mlflow_bridge.found.summary}")
    with _start_lock:
        _captures.append(put)
        mlflow_bridge.tracing.start(_accepts, _put, _Flush())
        _captures_changed()
    try:
        yield
    finally:
        with _start_lock:
            _captures.remove(put)
            _captures_changed()


def is_capturing() -> bool:
    """Whether traces are captured now."""
    return bool(_captures)


def _captures_changed() -> None:
    if not (_is_ours and serves(mlflow_bridge.client.tracking_uri())):
        mlflow_bridge.tracing.rebuild()  # the exporter that stands there otherwise is MLflow's own
    if _delivery is not None:
        _delivery.pause(_captures)


def _accepts(tracking_uri: str) -> bool:
    return bool(_captures) or (_is_ours and serves(tracking_uri))


def _put(trace: mlflow_bridge.FinishedTrace) -> None:
    if _captures and not trace.supplement:
        trace.captured_by = _captures[-1]
    if trace.captured_by:
        trace.captured_by(trace)
    elif _delivery is not None:
        _delivery.put(trace)


class _Flush:
    """What ``mlflow.flush_trace_async_logging()`` finds as the queue."""

    def flush(self, terminate: bool = False) -> bool:
        """Wait, but not for ever; ``terminate`` is what MLflow's own queues take."""
        return flush(MAX_FLUSH)


def flush(timeout: float | None = None) -> bool:
    """Wait until every finished trace is delivered, spooled or refused.

    Args:
        timeout: Seconds to wait at most; None waits for ever.

    Returns:
        Whether nothing waits any more.
    """
    return _delivery is None or _delivery.flush(timeout)


def shutdown() -> None:
    """Deliver what waits within ``shutdown_timeout``, and spool the rest; for a server's shutdown hook."""
    if _delivery is not None:
        _delivery.shutdown()


def sampled_out() -> None:
    """Count a trace that is not kept."""
    if _delivery is not None:
        _delivery.sampled_out()


def stats() -> Stats:
    """What became of the traces of this process."""
    return _delivery.stats() if _delivery is not None else Stats()
