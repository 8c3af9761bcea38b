"""Where finished traces wait for the sender: bounded in bytes, in batches."""

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
"""Traces that wake the sender at once."""

LINGER = 0.25
"""Seconds that a trace may wait for others to share its request: long enough for large batches under load, short
enough that a developer sees the trace at once, and that a crash loses little."""

FLUSH_PAUSE = 0.01
"""Seconds between two looks at most whether a flush is over."""

_NEVER = 1 << 60


class TraceQueue:
    """Finished traces on their way to the sender, and the count of all that is still pending.

    A trace counts against ``max_bytes`` until its end, also after the sender took it.

    `put` takes no lock: any thread, greenlet, signal handler or collected object may call it at any point, and so may a
    process that was forked while another thread was in here. All else is off the request's way.

    Args:
        max_bytes: Bytes that may be pending.
        clock: Tells the time in seconds.

    Attributes:
        flushes: How often somebody began to wait for all that is pending.
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
        self._is_awaited = True  # also by a sender that has yet to begin
        self._lock = threading.RLock()  # held over plain arithmetic only; a signal's handler may flush meanwhile

    def put(self, trace: PendingTrace) -> bool:
        """Add a trace; False if there is no room for it. Never waits."""
        size, traces = trace.size, self._traces
        if self._fresh + self._held + size > self.max_bytes:
            return False
        if not traces:
            self._first_at = self._clock()
        self._fresh += size  # two threads at once may count one of them only; the next `take` counts again
        traces.append(trace)
        if len(traces) >= self._wake_at:
            self._wake_at = _NEVER
            self._wakeup.wake()
        return True

    def wait(self, timeout: float | None, flushes: int) -> bool:
        """Wait for a batch: traces that lingered, or enough of them, or any if somebody flushes.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            flushes: How many flushes the caller knows of; a new one ends the wait.

        Returns:
            Whether there is a batch to take.
        """
        give_up = None if timeout is None else self._clock() + timeout
        self._wakeup.begin()
        is_rested = self._is_awaited  # before the first wait, too
        self._is_awaited = True
        try:
            while True:
                self._wake_at = MAX_BATCH if self._traces else 1  # before the look: who puts after it wakes us
                if self._is_ripe():
                    self._see_lateness(is_rested)
                    return True
                now = self._clock()
                if self.flushes != flushes or (give_up is not None and now >= give_up):
                    return False
                if self._traces and self._wake_at == 1:  # one that has come in between
                    continue
                ripe_at = self._first_at + LINGER if self._traces else None
                waits = [at - now for at in (give_up, ripe_at) if at is not None]
                self._wakeup.wait(max(0.0, min(waits)) if waits else None)
                is_rested = True
        finally:
            self._wake_at = _NEVER
            self._is_awaited = False

    def take(self) -> list[PendingTrace]:
        """Take all that is there, without a wait; each counts as old as the oldest of them."""
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
        """Count a pending trace that comes to its end in two parts as one more."""
        with self._lock:
            self._taken += 1

    def resize(self, by: int) -> None:
        """Count a pending trace that has grown or shrunk by so many bytes."""
        with self._lock:
            self._held += by

    def end(self, size: int) -> None:
        """Give back the room of a trace that held ``size`` bytes and has come to its end, whichever."""
        with self._lock:
            self._held -= size
            self._ended += 1

    def flush(self, timeout: float | None, is_in_vain: Callable[[], bool] = bool) -> bool:
        """Wake the sender, and wait until as many traces have ended as were put so far.

        It looks again and again: whoever waits and the sender may be threads of different kinds, as when gevent has
        patched only one of them.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            is_in_vain: Whether to stop before that.

        Returns:
            Whether they have ended.
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
        """Bytes that are pending now."""
        return self._fresh + self._held

    @property
    def waits_since(self) -> float | None:
        """When the oldest came of those that the sender has not taken; None if there are none."""
        return self._first_at if self._traces else None

    @property
    def pending(self) -> int:
        """Traces that are pending now."""
        with self._lock:
            return self._taken + len(self._traces) - self._ended

    @property
    def is_flushing(self) -> bool:
        """Whether somebody waits for all that is pending."""
        return self._flushing > 0

    @property
    def is_filling(self) -> bool:
        """Whether so much is pending that it should be made small."""
        return self.bytes > self.max_bytes // 4

    @property
    def left_alone(self) -> float:
        """Seconds that ripe traces have lain in front of a sender that waits for them, or did so once."""
        if self._is_awaited and self._traces:
            return max(self._lateness, self._clock() - self._first_at - LINGER)
        return self._lateness

    def _see_lateness(self, is_rested: bool) -> None:
        if is_rested:  # else it had other things to do
            self._lateness = max(self._lateness, self._clock() - self._first_at - LINGER)

    def _is_ripe(self) -> bool:
        if not self._traces:
            return False
        return self._flushing > 0 or len(self._traces) >= MAX_BATCH or self._clock() >= self._first_at + LINGER
