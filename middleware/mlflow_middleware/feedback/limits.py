"""How much feedback a process takes: at a time, and on one trace."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from mlflow_middleware._internal import clock
from mlflow_middleware.feedback.body import FeedbackError

MAX_AT_ONCE = 20
"""Votes that one process takes at a time: each holds one of the app's threads."""

MAX_WAITING = 2
"""How many of them may wait for a trace: fewer than a small app has threads, or unknown ids would hold them all."""

MAX_RATE, PERIOD = 20, 60.0
"""Votes on one trace that a process takes in so many seconds: a person who changes their mind needs fewer."""

MAX_KNOWN = 10_000
"""Traces of which the last votes are remembered."""


class Slots:
    """How many votes may be on their way at a time."""

    def __init__(self) -> None:
        self.refill()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.refill)

    def refill(self) -> None:
        """All are free: at the start, and in a forked child."""
        self._votes = threading.Semaphore(MAX_AT_ONCE)
        self._waiting = threading.Semaphore(MAX_WAITING)

    def of_votes(self) -> Slot:
        """The right to vote."""
        return Slot(self._votes)

    def of_waiting(self) -> Slot:
        """The right to wait."""
        return Slot(self._waiting)


class Slot:
    """One of a few; entered at once or not at all."""

    def __init__(self, semaphore: threading.Semaphore) -> None:
        self._semaphore = semaphore

    def __enter__(self) -> None:
        if not self._semaphore.acquire(blocking=False):
            raise FeedbackError(503, "too many votes at once, try again")

    def __exit__(self, *_: object) -> None:
        self._semaphore.release()


class Rates:
    """How often one trace was voted on lately.

    Args:
        clock: Tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = clock.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, trace_id: str) -> None:
        """Another vote.

        Raises:
            FeedbackError: 503, there were too many.
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
"""Those of this process."""
