"""The wake-up of the sender by threads of any kind."""

from __future__ import annotations

import _thread
import contextlib

MAX_SLEEP = 10.0
"""Longest sleep of the sender, in seconds: a precaution that limits the cost of a lost call."""


class Wakeup:
    """A sleeper that any thread can wake without waiting.

    It is a lock that the sleeper acquires twice. Only the sleeper waits for it, so the lock is of the sleeper's kind: a
    native one for a native thread, gevent's for a greenlet. Releasing either never waits.
    """

    def __init__(self) -> None:
        self._lock: _thread.LockType | None = None

    def begin(self) -> None:
        """Become the sleeper; calls from now on end the next `wait` if none is in progress."""
        if self._lock is None:
            lock = _thread.allocate_lock()
            lock.acquire()
            self._lock = lock

    def wait(self, timeout: float | None) -> None:
        """Sleep until a call, or for the given number of seconds at most."""
        assert self._lock
        self._lock.acquire(True, MAX_SLEEP if timeout is None else min(timeout, MAX_SLEEP))

    def wake(self) -> None:
        """Wake the sleeper, without waiting; several calls while nobody sleeps count as one."""
        lock = self._lock
        if lock is not None and lock.locked():
            with contextlib.suppress(RuntimeError):  # another thread has called in between
                lock.release()
