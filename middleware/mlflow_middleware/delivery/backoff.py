"""The pause after a failure: it doubles, within bounds, and no two processes choose the same."""

from __future__ import annotations

import random
from dataclasses import dataclass

MIN_BACKOFF, MAX_BACKOFF = 0.5, 30.0
"""Seconds between two attempts, after the first failure and at most."""

MAX_RETRY_AFTER = 300.0
"""Seconds that a server's ``Retry-After`` is honoured at most."""

_random = random.SystemRandom()
"""What an app has seeded for itself is left alone; and no two workers draw the same after a fork."""


@dataclass(slots=True)
class Backoff:
    """What is being tried again, and when.

    Attributes:
        failures: Failures in a row.
        retry_at: When it may be tried again.
        problem: Why it failed, as last logged; empty if it did not.
    """

    failures: int = 0
    retry_at: float = 0.0
    problem: str = ""

    def fail(self, now: float, retry_after: float | None = None, longest: float = MAX_BACKOFF) -> None:
        """Pause after a failure.

        Args:
            now: The time.
            retry_after: Seconds that the server asked us to wait.
            longest: Seconds of our own pause at most, give or take a quarter.
        """
        self.failures += 1
        pause = min(longest, MIN_BACKOFF * 2.0 ** min(self.failures - 1, 10)) * _random.uniform(0.75, 1.25)
        self.retry_at = now + max(pause, min(MAX_RETRY_AFTER, retry_after or 0.0))
