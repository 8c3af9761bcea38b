"""What there is once in each process: the queue, the sender and its thread, the counts, and the exit."""

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
"""Seconds that ``mlflow.flush_trace_async_logging()``, which has no time limit of its own, waits at most."""

FOR_SPOOL = 1.0
"""Seconds of an exit that are left to the spool, and a fifth at most."""

STUCK = 3.0
"""Seconds that ripe traces lie in front of a sender that waits for them, until it counts as one that does not run."""

RELIEF = 1.0
"""Seconds between two times that such a sender is given time after a request, and how long each may take."""

LAST_ATTEMPT = 0.2
"""Seconds that an exit gives a server that was away before."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Delivery:
    """The queue of this process, its sender, and what became of the traces.

    What is here for a moment only is never waited for, so that no thread, greenlet or forked child finds a lock that is
    held by one that does not run.

    Args:
        max_queue_bytes: Bytes that may be pending.
        shutdown_timeout: Seconds that an exit may take.
        spool_dir: Where traces are kept while the server is unreachable; None keeps them in memory.
        max_spool_bytes: What the spool may take.
        paused: Whether nothing may be sent yet.
        on_begin: Called in each process, a forked one too, when it begins to deliver.
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
        """An empty queue and no thread, and no lock that anybody could hold."""
        self.pid = os.getpid()
        self._queue = TraceQueue(self._max_queue_bytes)
        self._stats = Stats()
        self._sender = self.sender_type(self._queue, self._stats, self.spool)
        self._sender.is_paused = self._paused
        self._may_start = [True]  # who pops it starts the thread: nobody waits for anybody
        self._successors: dict[int, Delivery] = {}
        self._exit_by: float | None = None
        self._told = Stats()
        self._turned_away = 0
        self._full_logged_at = float("-inf")
        self._is_stuck = False
        self._relieved_at = 0.0

    def of_process(self, pid: int) -> Delivery:
        """The delivery of a process that was forked from this one, with the same options; in that process only."""
        if pid in self._successors:
            return self._successors[pid]
        self._sender.abandon()
        successor = copy.copy(self)
        successor._begin()
        return self._successors.setdefault(pid, successor)  # of two threads that notice at once, one prevails

    def put(self, trace: mlflow_bridge.PendingTrace) -> None:
        """Take a finished trace; microseconds, never waits."""
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
        """Start the sender, if this process has none yet. Does not wait for it to run, as `threading.Thread` does."""
        if self._paused or hosts.will_fork():
            return
        if sys.is_finalizing():  # a trace that ends with the last of its objects: none would begin
            return
        try:
            self._may_start.pop()
        except IndexError:
            return
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # the interpreter is exiting: `flush` does the work
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
        """Deliver what is pending, at the latest within a time: traces are made readable first, then completed.

        Args:
            timeout: Seconds to wait at most, by default ``shutdown_timeout``. A server that is away is not waited for.

        Returns:
            Whether nothing is pending any more.
        """
        timeout = self._shutdown_timeout if timeout is None else timeout
        deadline = clock.monotonic() + timeout

        def is_hopeless() -> bool:
            return self._sender.is_hopeless

        with self._sender.in_a_hurry() as was_away:
            if was_away and (self._flush(min(timeout, LAST_ATTEMPT), is_hopeless) or self._sender.is_away()):
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
        """Within ``shutdown_timeout``, deliver what is pending; spool the rest, and log what became of all.

        Args:
            last: Whether the process ends: what is left is lost, and counted so. After a server's shutdown hook it may
                go on, and what is left waits.
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
        self._exit_by = exit_by if self._exit_by is None else float("-inf")  # what has come meanwhile has the rest
        stats = self.stats()
        if stats != self._told:
            self._told = stats
            level = logging.WARNING if stats.dropped or stats.waiting else logging.INFO
            logger.log(level, "traces at exit: %s" if last else "traces at shutdown: %s", stats)

    def pause(self, paused: bool) -> None:
        """Let the sender rest, or go on; meanwhile nothing is sent, and nobody waits for it."""
        self._paused = self._sender.is_paused = paused

    def leave_out(self, reason: str) -> None:
        """Count a request whose trace nobody wants."""
        self._stats.leave_out(reason)

    def stats(self) -> Stats:
        """The counts as they stand."""
        return standing(self._stats, self._queue, self._sender, self._turned_away)

    def _full(self) -> None:
        self._turned_away += 1  # one step, as requests of many threads come here at once
        now = clock.monotonic()
        if now - self._full_logged_at >= LOG_INTERVAL:
            self._full_logged_at = now
            logger.warning(
                "traces dropped, queue full: %d so far, always the newest; fix what earlier lines report, if anything, "
                "or raise max_queue_bytes=%d",
                self._turned_away,
                self._max_queue_bytes,
            )

    def relieve(self) -> None:
        """After a request, where the server has a hook for that: wait for a sender that runs only meanwhile."""
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
