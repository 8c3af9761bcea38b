"""Where finished traces wait for the sender: bounded in bytes, in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge import PendingTrace

MAX_BATCH = 512
"""Traces that wake the sender at once."""

LINGER = 0.25
"""Seconds that a trace may wait for others to share its request: long enough for large batches under load, short
enough that a developer sees the trace at once, and that a crash loses little."""


class TraceQueue:
    """Finished traces on their way to the sender, and the count of all that is still pending.

    A trace counts against ``max_bytes`` until its end, also after the sender took it.

    Args:
        max_bytes: Bytes that may be pending.
        clock: Tells the time in seconds.

    Attributes:
        bytes: Bytes that are pending now.
        pending: Traces that are pending now.
        flushes: How often somebody began to wait for all that is pending.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.pending = 0
        self.flushes = 0
        self._put = 0
        self._ended = 0
        self._traces: list[PendingTrace] = []
        self._ripe_at = 0.0
        self._flushing = 0
        self._clock = clock
        self._lock = threading.RLock()  # a trace may end with an object that is collected while this thread is in here
        self._changed = threading.Condition(self._lock)

    def put(self, trace: PendingTrace) -> bool:
        """Add a trace; False if there is no room for it. Never blocks."""
        with self._lock:  # as good as the condition, without its two calls
            if self.bytes + trace.size > self.max_bytes:
                return False
            self.bytes += trace.size
            self.pending += 1
            self._put += 1
            self._traces.append(trace)
            if len(self._traces) == 1:
                self._ripe_at = self._clock() + LINGER
                self._changed.notify_all()
            elif len(self._traces) == MAX_BATCH:
                self._changed.notify_all()
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
        with self._changed:
            while not self._is_ripe():
                now = self._clock()
                if self.flushes != flushes or (give_up is not None and now >= give_up):
                    return False
                waits = [at - now for at in (give_up, self._ripe_at if self._traces else None) if at is not None]
                self._changed.wait(max(0.0, min(waits)) if waits else None)
            return True

    def take(self) -> list[PendingTrace]:
        """Take all that is there, without a wait."""
        with self._changed:
            taken, self._traces = self._traces, []
            return taken

    def resize(self, by: int) -> None:
        """Count a pending trace that has grown or shrunk by so many bytes."""
        with self._changed:
            self.bytes += by

    def end(self, size: int) -> None:
        """Give back the room of a trace that held ``size`` bytes and has come to its end, whichever."""
        with self._changed:
            self.bytes -= size
            self.pending -= 1
            self._ended += 1
            if self._flushing:
                self._changed.notify_all()

    def flush(self, timeout: float | None) -> bool:
        """Wake the sender, and wait until as many traces have ended as were put so far; False if time was over."""
        with self._changed:
            put = self._put
            self._flushing += 1
            self.flushes += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._ended >= put, timeout)
            finally:
                self._flushing -= 1

    @property
    def is_flushing(self) -> bool:
        """Whether somebody waits for all that is pending."""
        return self._flushing > 0

    @property
    def is_filling(self) -> bool:
        """Whether so much is pending that it should be made small."""
        return self.bytes > self.max_bytes // 4

    def _is_ripe(self) -> bool:
        if not self._traces:
            return False
        return self._flushing > 0 or len(self._traces) >= MAX_BATCH or self._clock() >= self._ripe_at
