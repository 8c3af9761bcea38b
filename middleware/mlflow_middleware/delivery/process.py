"""The delivery of one process: the queue, the sender and its thread, the counts and the exit."""

from __future__ import annotations

import _thread
import copy
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal import clock
from mlflow_middleware._internal.guard import report
from mlflow_middleware.delivery import hosts
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.spooling import LOG_INTERVAL
from mlflow_middleware.delivery.standing import standing
from mlflow_middleware.delivery.stats import Stats

MAX_FLUSH = 60.0
"""Maximum number of seconds that ``mlflow.flush_trace_async_logging()``, which has no limit of its own, waits."""

FOR_SPOOL = 1.0
"""Seconds of an exit that are reserved for the spool, limited to a fifth of its time."""

STUCK = 3.0
"""Seconds that due traces stay in front of a waiting sender until its thread counts as not running."""

RELIEF = 1.0
"""Minimum time between two waits for such a sender after a request, and the maximum for each, in seconds."""

LAST_ATTEMPT = 0.2
"""Seconds that an exit gives a server that was unreachable before."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Delivery:
    """The queue of this process, its sender, and the counts of its traces.

    No method waits for a lock that is held only for a moment, so that no thread, greenlet or forked child meets a lock
    whose holder does not run.

    Args:
        max_queue_bytes: Maximum size of all pending traces, in bytes.
        shutdown_timeout: Maximum number of seconds for an exit.
        spool_dir: Directory for traces while the server is unreachable; None keeps them in memory.
        max_spool_bytes: Maximum size of the spool, in bytes.
        paused: Whether nothing may be sent yet.
        on_begin: Called in each process, including forked ones, when it starts to deliver.
    """

    sender_type = Sender

    def __init__(
        self,
        max_queue_bytes: int,
        shutdown_timeout: float,
        spool_dir: Path | None = None,
        max_spool_bytes: int = 0,
        *,
        paused: bool = False,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._max_queue_bytes = max_queue_bytes
        self._shutdown_timeout = shutdown_timeout
        self.spool = Spool(spool_dir, max_spool_bytes) if spool_dir else None
        self._paused = paused
        self._on_begin = on_begin
        self._begin()

    def _begin(self) -> None:
        """Create an empty queue without a thread, and released locks."""
        self.pid = os.getpid()
        self._queue = TraceQueue(self._max_queue_bytes)
        self._stats = Stats()
        self._sender = self.sender_type(self._queue, self._stats, self.spool)
        self._sender.is_paused = self._paused
        self._may_start = [True]  # the thread that pops it starts the sender, so that no thread waits for another
        self._successors: dict[int, Delivery] = {}
        self._exit_by: float | None = None
        self._logged = Stats()
        self._rejected = 0
        self._full_logged_at = float("-inf")
        self._is_stuck = False
        self._relieved_at = 0.0

    def of_process(self, pid: int) -> Delivery:
        """Return the delivery of a process forked from this one, with the same options; only in that process."""
        if pid in self._successors:
            return self._successors[pid]
        self._sender.abandon()
        successor = copy.copy(self)
        successor._begin()
        return self._successors.setdefault(pid, successor)  # of two threads at once, one prevails

    def put(self, trace: mlflow_bridge.PendingTrace) -> None:
        """Accept a finished trace within microseconds, without waiting."""
        if not self._queue.put(trace):
            trace.forget_contents()
            if not trace.supplement:
                self._full()
        if self._may_start:
            self.start_thread()
        if self._queue.left_alone > STUCK:
            self._stuck()
        self._exit_by = None

    def start_thread(self) -> None:
        """Start the sender, if this process has none yet, without waiting until it runs, unlike `threading.Thread`."""
        if self._paused or hosts.will_fork():
            return
        if sys.is_finalizing():  # a trace that ends with the interpreter's last objects: no thread would start
            return
        try:
            self._may_start.pop()
        except IndexError:
            return
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # the interpreter is exiting: `flush` does the work instead
            self._may_start.append(True)
            return
        self._on_begin()

    def _run(self) -> None:
        threading.current_thread().name = "mlflow-middleware-sender"
        try:
            self._sender.run()
        finally:
            self._may_start.append(True)

    def flush(self, timeout: float | None) -> bool:
        """See `mlflow_middleware.delivery.flush`."""
        return self._flush(timeout, bool)

    def deliver(self, timeout: float | None = None) -> bool:
        """Deliver pending traces within a time limit: make all traces readable first, then complete them.

        Args:
            timeout: Maximum number of seconds to wait; ``shutdown_timeout`` by default. Servers that are known to be
                unreachable end the wait early.

        Returns:
            Whether no trace is pending any more.
        """
        timeout = self._shutdown_timeout if timeout is None else timeout
        deadline = clock.monotonic() + timeout

        def is_hopeless() -> bool:
            return self._sender.is_hopeless

        with self._sender.in_a_hurry() as unreachable:
            if unreachable and (self._flush(min(timeout, LAST_ATTEMPT), is_hopeless) or self._sender.is_unreachable()):
                return self._queue.pending == 0
            return self._flush(max(0.0, deadline - clock.monotonic()), is_hopeless)

    def _flush(self, timeout: float | None, is_in_vain: Callable[[], bool]) -> bool:
        if self._paused:
            return True
        if self._queue.pending:
            self.start_thread()
        elif not mlflow_bridge.tracing.flush(MAX_FLUSH if timeout is None else timeout):
            return False
        if self._queue.pending and self._may_start:
            self._sender.work_until(clock.monotonic() + (MAX_FLUSH if timeout is None else timeout))
            timeout = 0.0
        return self._queue.flush(timeout, is_in_vain)

    def shutdown(self, *, last: bool = False) -> None:
        """Deliver pending traces within ``shutdown_timeout``; spool the rest, and log the counts.

        Args:
            last: Whether the process ends, so that the remaining traces are counted as lost. After a server's shutdown
                hook the process may continue, and they stay pending.
        """
        if self._paused:
            return
        now = clock.monotonic()
        if self._exit_by is None:
            self._exit_by = now + self._shutdown_timeout
        elif self._exit_by < now and not last:
            return
        exit_by = self._exit_by
        of_spool = min(FOR_SPOOL, max(0.0, exit_by - now) / 5) if self.spool else 0.0
        if not self.deliver(max(0.0, exit_by - now - of_spool)):
            try:
                self._sender.give_up(exit_by, last=last)
            except Exception as error:
                report("an exit", error)
        self._exit_by = exit_by if self._exit_by is None else float("-inf")  # later traces get the rest
        stats = self.stats()
        if stats != self._logged:
            self._logged = stats
            level = logging.WARNING if stats.dropped or stats.waiting else logging.INFO
            logger.log(level, "traces at exit: %s" if last else "traces at shutdown: %s", stats)

    def pause(self, paused: bool) -> None:
        """Pause or resume the sender; during a pause nothing is sent, and no flush waits for it."""
        self._paused = self._sender.is_paused = paused

    def leave_out(self, reason: str) -> None:
        """Count a request whose trace is not wanted."""
        self._stats.leave_out(reason)

    def stats(self) -> Stats:
        """Return the current counts."""
        return standing(self._stats, self._queue, self._sender, self._rejected)

    def _full(self) -> None:
        self._rejected += 1  # one step, as requests in many threads get here at once
        now = clock.monotonic()
        if now - self._full_logged_at >= LOG_INTERVAL:
            self._full_logged_at = now
            logger.warning(
                "traces dropped, queue full: %d so far, always the newest; fix what earlier lines report, if anything, "
                "or raise max_queue_bytes=%d",
                self._rejected,
                self._max_queue_bytes,
            )

    def relieve(self) -> None:
        """Wait, after a request, for a sender whose thread runs only during requests; called by a server's hook."""
        if self._queue.left_alone > RELIEF:
            self._stuck()
        now = clock.monotonic()
        if self._is_stuck and now - self._relieved_at > RELIEF:
            self._relieved_at = now
            self.flush(RELIEF)

    def _stuck(self) -> None:
        if not self._is_stuck:
            self._is_stuck = True
            logger.warning(
                "traces are waiting, as the thread that sends them does not run: does the server let threads run "
                "between requests (uWSGI needs --enable-threads)? They are sent when it runs, at the latest at exit: "
                "%d waiting",
                self._queue.pending,
            )
