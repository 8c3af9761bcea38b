"""The thread that reads and writes the spool, since a disk may stall.

Only an exit waits for it, and only briefly. The thread also checks regularly whether the sender is stuck in a call, and
then spools the pending traces.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal import clock
from mlflow_middleware._internal.guard import report

LOOK = 1.0
"""Seconds between two checks of the sender."""

LATE = 1.0
"""Maximum number of seconds past its deadline that an exit waits for the spool, while it makes progress."""

STALLED = 0.25
"""Seconds without progress after which the exit stops waiting."""


class Disk:
    """A thread that runs jobs one after the other.

    Args:
        look: Called about once a second.
    """

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._look_at = 0.0
        self._jobs: deque[Callable[[], object]] = deque()
        self._left = 0
        self._progress_at = 0.0
        self._changed = threading.Condition(threading.RLock())  # a signal handler may exit while this is held
        self._thread: threading.Thread | None = None

    def run(self, job: Callable[[], object]) -> None:
        """Run a job in the thread; at once if no thread can be started any more."""
        with self._changed:
            self._jobs.append(job)
            self._left += 1
            self._changed.notify_all()
        if not self._has_thread():
            while self._jobs:
                self._do(self._jobs.popleft())

    def wait(self, deadline: float) -> bool:
        """Wait for all jobs; past the deadline only briefly, and while there is progress.

        Returns:
            Whether all jobs are done.
        """
        with self._changed:
            self._progress_at = clock.monotonic()
            while self._left:
                now = clock.monotonic()
                until = max(deadline, min(deadline + LATE, self._progress_at + STALLED))
                if now >= until:
                    return False
                self._changed.wait(until - now)
        return True

    def _has_thread(self) -> bool:
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._serve, name="mlflow-middleware-spool", daemon=True)
                try:
                    if not sys.is_finalizing():
                        thread.start()
                        self._thread = thread
                except RuntimeError:  # the interpreter is exiting
                    pass
            return self._thread is not None and self._thread.is_alive()

    def _serve(self) -> None:
        mlflow_bridge.silence()
        while True:
            with self._changed:
                if not self._jobs:
                    self._changed.wait(max(0.0, self._look_at - clock.monotonic()))
                job = self._jobs.popleft() if self._jobs else None
            if job:
                self._do(job)
            if clock.monotonic() >= self._look_at:
                self._look_at = clock.monotonic() + LOOK
                self._safely(self._look)

    def _do(self, job: Callable[[], object]) -> None:
        self._safely(job)
        with self._changed:
            self._left -= 1
            self._progress_at = clock.monotonic()
            self._changed.notify_all()

    def _safely(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:  # the thread must survive
            report("the spool", error)


def at_once(job: Callable[[], object]) -> None:
    """Run a job in the current thread, where it delays nothing else."""
    job()
