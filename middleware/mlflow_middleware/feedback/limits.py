"""Limits on the feedback that a process accepts at once, and on one trace."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from mlflow_middleware._internal import clock
from mlflow_middleware.feedback.body import FeedbackError

MAX_AT_ONCE = 20
"""Maximum number of concurrent votes in a process; each blocks one of the app's threads."""

MAX_WAITING = 2
"""Maximum number of votes that wait for a trace: fewer than a small app's threads, which unknown ids could block."""

MAX_RATE, PERIOD = 20, 60.0
"""Maximum number of votes on one trace per period, and the period in seconds: more than a person needs."""

MAX_KNOWN = 10_000
"""Maximum number of traces whose recent votes are counted."""


class Slots:
    """Slots for concurrent votes."""

    def __init__(self) -> None:
        self.refill()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.refill)

    def refill(self) -> None:
        """Free all slots, at the start and in a forked child."""
        self._votes = threading.Semaphore(MAX_AT_ONCE)
        self._waiting = threading.Semaphore(MAX_WAITING)

    def of_votes(self) -> Slot:
        """Return a slot for a vote."""
        return Slot(self._votes)

    def of_waiting(self) -> Slot:
        """Return a slot for a vote that waits."""
        return Slot(self._waiting)


class Slot:
    """A context manager for one slot; it raises at once if none is free."""

    def __init__(self, semaphore: threading.Semaphore) -> None:
        self._semaphore = semaphore

    def __enter__(self) -> None:
        if not self._semaphore.acquire(blocking=False):
            raise FeedbackError(503, "too many votes at once, try again")

    def __exit__(self, *_: object) -> None:
        self._semaphore.release()


class Rates:
    """Rate limit for the votes on one trace.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = clock.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, trace_id: str) -> None:
        """Count a vote.

        Raises:
            FeedbackError: 503, there were too many votes on the trace.
        """
        now = self._clock()
        began, votes = self._known.pop(trace_id, (now, 0))
        if now - began >= PERIOD:
            began, votes = now, 0
        self._known[trace_id] = (began, votes + 1)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if votes >= MAX_RATE:
            raise FeedbackError(503, "too many votes on this trace, try again later")


slots, rates = Slots(), Rates()
"""The limits of this process."""
