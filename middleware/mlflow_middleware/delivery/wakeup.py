"""How any thread wakes the sender, whatever kind of thread either of them is."""

from __future__ import annotations

import _thread
import contextlib

MAX_SLEEP = 10.0
"""Seconds that the sender sleeps at most; nothing should need it, and a call that got lost costs no more."""


class Wakeup:
    """One sleeper, and anybody who wakes it without waiting for anything.

    It is a lock that the sleeper takes twice. Only the sleeper waits for it, so it is of the sleeper's kind: a native
    one where that is a native thread, gevent's where it is a greenlet. To release either never waits.
    """

    def __init__(self) -> None:
        self._lock: _thread.LockType | None = None

    def begin(self) -> None:
        """Become the sleeper; calls from now on end the next `wait`, if none is going on."""
        if self._lock is None:
            lock = _thread.allocate_lock()
            lock.acquire()
            self._lock = lock

    def wait(self, timeout: float | None) -> None:
        """Sleep until somebody calls, or for so many seconds at most."""
        assert self._lock
        self._lock.acquire(True, MAX_SLEEP if timeout is None else min(timeout, MAX_SLEEP))

    def wake(self) -> None:
        """Call. Never waits; calls while nobody sleeps are one."""
        lock = self._lock
        if lock is not None and lock.locked():
            with contextlib.suppress(RuntimeError):  # somebody else has called in between
                lock.release()
