"""Where finished traces wait for the sender: bounded in bytes, in batches."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge import FinishedTrace

MAX_BATCH = 512
"""Traces sent in one request."""

LINGER = 0.25
"""Seconds that a trace may wait for others to share its request: long enough for large batches under load, short
enough that a developer sees the trace at once, and that a crash loses little."""


class TraceQueue:
    """Finished traces on their way to the sender, and the count of all that is not settled yet.

    What is put counts against ``max_bytes`` until it is settled, also after the sender took it.

    Args:
        max_bytes: What may wait.

    Attributes:
        bytes: What waits now.
        unsettled: Traces that wait now.
        refused: Traces for which there was no room.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.unsettled = 0
        self._put = 0
        self._settled = 0
        self._traces: list[FinishedTrace] = []
        self._ripe_at = 0.0
        self._hurry = 0
        self.hurries = 0
        """How often somebody began to wait for the queue to be empty."""
        self._lock = threading.RLock()  # a trace may end with an object that is collected while this thread is in here
        self._changed = threading.Condition(self._lock)

    def put(self, trace: FinishedTrace) -> bool:
        """Add a trace; False when there is no room for it. Never blocks."""
        with self._lock:  # as good as the condition, without its two calls
            if self.bytes + trace.size > self.max_bytes:
                return False
            self.bytes += trace.size
            self.unsettled += 1
            self._put += 1
            self._traces.append(trace)
            if len(self._traces) == 1:
                self._ripe_at = time.monotonic() + LINGER
                self._changed.notify_all()
            elif len(self._traces) == MAX_BATCH:
                self._changed.notify_all()
            return True

    def take(self, timeout: float | None, hurries: int) -> list[FinishedTrace]:
        """Wait for a batch: traces that lingered, or enough of them, or somebody in a hurry.

        Args:
            timeout: Seconds to wait at most; None waits for ever.
            hurries: How many hurries the caller knows of; a new one ends the wait.

        Returns:
            All that is there, or nothing when the time is over first.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._is_ripe():
                if self.hurries != hurries:
                    return []
                now = time.monotonic()
                waits = [at - now for at in (give_up, self._ripe_at if self._traces else None) if at is not None]
                if give_up is not None and now >= give_up:
                    return []
                self._changed.wait(max(0.0, min(waits)) if waits else None)
            taken, self._traces = self._traces, []
            return taken

    def take_all(self) -> list[FinishedTrace]:
        """What is there, at once."""
        with self._changed:
            taken, self._traces = self._traces, []
            return taken

    def resize(self, by: int) -> None:
        """A trace that waits has grown or shrunk by so many bytes."""
        with self._changed:
            self.bytes += by

    def settle(self, size: int) -> None:
        """A trace that held ``size`` bytes has come to its end, whichever."""
        with self._changed:
            self.bytes -= size
            self.unsettled -= 1
            self._settled += 1
            if self._hurry:
                self._changed.notify_all()

    def wait_until_settled(self, timeout: float | None) -> bool:
        """Hurry the sender, and wait until as many traces have ended as were put so far; False when time was over."""
        with self._changed:
            put = self._put
            self._hurry += 1
            self.hurries += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._settled >= put, timeout)
            finally:
                self._hurry -= 1

    @property
    def in_a_hurry(self) -> bool:
        """Whether somebody waits for the queue to be empty."""
        return self._hurry > 0

    def _is_ripe(self) -> bool:
        if not self._traces:
            return False
        return self._hurry > 0 or len(self._traces) >= MAX_BATCH or time.monotonic() >= self._ripe_at
