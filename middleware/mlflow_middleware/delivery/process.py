"""What there is once in each process: the queue, the sender and its thread, the counts, and the exit."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.spooling import LOG_INTERVAL
from mlflow_middleware.delivery.stats import Stats
from mlflow_middleware.guard import report

MAX_FLUSH = 60.0
"""Seconds that ``mlflow.flush_trace_async_logging()``, which has no time limit of its own, waits at most."""

FOR_SPOOL = 1.0
"""Seconds of an exit that are left to the spool, and a fifth at most."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Delivery:
    """The queue of this process, its sender, and what became of the traces.

    Args:
        max_queue_bytes: Bytes that may be pending.
        shutdown_timeout: Seconds that an exit may take.
        spool_dir: Where traces are kept while the server is unreachable; None keeps them in memory.
        max_spool_bytes: What the spool may take.
        paused: Whether nothing may be sent yet.
    """

    _sender: Sender

    def __init__(
        self,
        max_queue_bytes: int,
        shutdown_timeout: float,
        spool_dir: Path | None = None,
        max_spool_bytes: int = 0,
        *,
        paused: bool = False,
    ) -> None:
        self._max_queue_bytes = max_queue_bytes
        self._shutdown_timeout = shutdown_timeout
        self._spool = Spool(spool_dir, max_spool_bytes) if spool_dir else None
        self._paused = paused
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
        self.pause(self._paused)
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()
        self._exit_by: float | None = None
        self._full_logged_at = float("-inf")

    def put(self, trace: mlflow_bridge.PendingTrace) -> None:
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
        if self._paused or sys.is_finalizing():  # a trace that ends with the last of its objects: none would begin
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
        """See `mlflow_middleware.delivery.flush`."""
        if self._paused:
            return True
        if self._queue.pending:
            self.start_thread()
        elif not mlflow_bridge.tracing.flush(MAX_FLUSH if timeout is None else timeout):
            return False
        if self._queue.pending and self._thread is None:
            self._sender.work_until(time.monotonic() + (MAX_FLUSH if timeout is None else timeout))
        return self._queue.flush(timeout)

    def shutdown(self) -> None:
        """Within ``shutdown_timeout``, deliver what is pending; spool or count the rest, and log it.

        At the end of the process, and at a server's shutdown hook; new traces may come after it.
        """
        if self._paused:
            return
        now = time.monotonic()
        exit_by = self._exit_by
        if exit_by is None:
            self._exit_by = exit_by = now + self._shutdown_timeout
        elif exit_by < now:
            return
        of_spool = min(FOR_SPOOL, (exit_by - now) / 5) if self._spool else 0.0
        if not self.flush(max(0.0, exit_by - now - of_spool)):
            try:
                self._sender.give_up(exit_by)
            except Exception as error:
                report("an exit", error)
        self._exit_by = float("-inf")
        stats = self.stats()
        if stats.waiting:
            stats.drop("not delivered before the exit", stats.waiting)
            stats.waiting = 0
        if stats != Stats():
            logger.log(logging.WARNING if stats.dropped else logging.INFO, "at exit: %s", stats)

    def pause(self, paused: bool) -> None:
        """Let the sender rest, or go on; meanwhile nothing is sent, and nobody waits for it."""
        self._paused = paused
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
