"""The queue of finished traces for the sender: limited in bytes, and taken in batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlflow_middleware._internal import clock
from mlflow_middleware.delivery.wakeup import Wakeup

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge import PendingTrace

MAX_BATCH = 512
"""Number of traces that wake the sender at once."""

LINGER = 0.25
"""Maximum number of seconds that a trace waits for others to share its request: long enough for large batches under
load, short enough that a developer sees the trace at once and that a crash loses little."""

FLUSH_PAUSE = 0.01
"""Longest pause between two checks whether a flush is complete, in seconds."""

_NEVER = 1 << 60


class TraceQueue:
    """Finished traces for the sender, and the count of all that are still pending.

    A trace counts against ``max_bytes`` until its end, even after the sender has taken it.

    `put` takes no lock: any thread, greenlet, signal handler or finalizer may call it at any time, and so may a process
    that was forked while another thread was in here. Nothing else runs in the path of a request.

    Args:
        max_bytes: Maximum size of all pending traces, in bytes.
        clock: Returns the time in seconds.

    Attributes:
        flushes: Number of flushes that have begun.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = clock.monotonic) -> None:
        self.max_bytes = max_bytes
        self.flushes = 0
        self._traces: deque[PendingTrace] = deque()
        self._first_at = 0.0
        self._fresh = 0
        self._held = 0
        self._taken = 0
        self._ended = 0
        self._flushing = 0
        self._clock = clock
        self._wakeup = Wakeup()
        self._wake_at = _NEVER
        self._lateness = 0.0
        self._is_awaited = True  # also by a sender that has not started yet
        self._lock = threading.RLock()  # held during plain arithmetic only; a signal handler may flush meanwhile

    def put(self, trace: PendingTrace) -> bool:
        """Add a trace; return False if there is no room for it. Never wait."""
        size, traces = trace.size, self._traces
        if self._fresh + self._held + size > self.max_bytes:
            return False
        if not traces:
            self._first_at = self._clock()
        self._fresh += size  # two threads at once may count only one of them; the next `take` counts again
        traces.append(trace)
        if len(traces) >= self._wake_at:
            self._wake_at = _NEVER
            self._wakeup.wake()
        return True

    def wait(self, timeout: float | None, flushes: int) -> bool:
        """Wait for a batch: lingering traces, a large number of them, or any if someone flushes.

        Args:
            timeout: Maximum number of seconds to wait; None for no limit.
            flushes: Number of flushes that the caller knows of; a new one ends the wait.

        Returns:
            Whether a batch can be taken.
        """
        give_up = None if timeout is None else self._clock() + timeout
        self._wakeup.begin()
        is_rested = self._is_awaited  # before the first wait, too
        self._is_awaited = True
        try:
            while True:
                self._wake_at = MAX_BATCH if self._traces else 1  # before the check: a `put` after it wakes us
                if self._is_ripe():
                    self._see_lateness(is_rested)
                    return True
                now = self._clock()
                if self.flushes != flushes or (give_up is not None and now >= give_up):
                    return False
                if self._traces and self._wake_at == 1:  # a trace that has arrived in between
                    continue
                ripe_at = self._first_at + LINGER if self._traces else None
                waits = [at - now for at in (give_up, ripe_at) if at is not None]
                self._wakeup.wait(max(0.0, min(waits)) if waits else None)
                is_rested = True
        finally:
            self._wake_at = _NEVER
            self._is_awaited = False

    def take(self) -> list[PendingTrace]:
        """Take all queued traces without waiting; each counts as old as the oldest of them."""
        since = self._first_at
        with self._lock:
            taken = [self._traces.popleft() for _ in range(len(self._traces))]
            self._taken += len(taken)
            self._held += sum([trace.size for trace in taken])
            self._fresh = 0
        for trace in taken:
            trace.since = since
        return taken

    def split(self) -> None:
        """Count one more trace, because a pending one will end in two parts."""
        with self._lock:
            self._taken += 1

    def resize(self, by: int) -> None:
        """Record the change in a pending trace's size, in bytes."""
        with self._lock:
            self._held += by

    def end(self, size: int) -> None:
        """Release the room of a trace that held ``size`` bytes and has ended."""
        with self._lock:
            self._held -= size
            self._ended += 1

    def flush(self, timeout: float | None, is_in_vain: Callable[[], bool] = bool) -> bool:
        """Wake the sender, and wait until all traces that were put so far have ended.

        This polls, because the waiting thread and the sender may be threads of different kinds, for example if gevent
        has patched only one of them.

        Args:
            timeout: Maximum number of seconds to wait; None for no limit.
            is_in_vain: Returns whether to stop early.

        Returns:
            Whether the traces have ended.
        """
        give_up = None if timeout is None else self._clock() + timeout
        with self._lock:
            put = self._taken + len(self._traces)
            self._flushing += 1
            self.flushes += 1
        self._wakeup.wake()
        pause = FLUSH_PAUSE / 10
        try:
            while self._ended < put:
                left = pause if give_up is None else min(pause, give_up - self._clock())
                if left <= 0 or is_in_vain():
                    return False
                time.sleep(left)
                pause = min(2 * pause, FLUSH_PAUSE)
            return True
        finally:
            with self._lock:
                self._flushing -= 1

    @property
    def bytes(self) -> int:
        """Size of all pending traces, in bytes."""
        return self._fresh + self._held

    @property
    def waits_since(self) -> float | None:
        """When the oldest trace that the sender has not taken was queued; None if there is none."""
        return self._first_at if self._traces else None

    @property
    def pending(self) -> int:
        """Number of pending traces."""
        with self._lock:
            return self._taken + len(self._traces) - self._ended

    @property
    def is_flushing(self) -> bool:
        """Whether someone waits for all pending traces."""
        return self._flushing > 0

    @property
    def is_filling(self) -> bool:
        """Whether the queue is so full that its traces should be compressed."""
        return self.bytes > self.max_bytes // 4

    @property
    def left_alone(self) -> float:
        """Longest time that due traces have waited while the sending thread did not wake up, in seconds."""
        if self._is_awaited and self._traces:
            return max(self._lateness, self._clock() - self._first_at - LINGER)
        return self._lateness

    def _see_lateness(self, is_rested: bool) -> None:
        if is_rested:  # otherwise it was busy
            self._lateness = max(self._lateness, self._clock() - self._first_at - LINGER)

    def _is_ripe(self) -> bool:
        if not self._traces:
            return False
        return self._flushing > 0 or len(self._traces) >= MAX_BATCH or self._clock() >= self._first_at + LINGER
