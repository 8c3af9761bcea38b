"""The pause after a failure: exponential, bounded, and random, so that processes do not retry at the same time."""

from __future__ import annotations

import random
from dataclasses import dataclass

MIN_BACKOFF, MAX_BACKOFF = 0.5, 30.0
"""Seconds between two attempts: after the first failure, and at most."""

MAX_RETRY_AFTER = 300.0
"""Maximum number of seconds for which a server's ``Retry-After`` is honoured."""

_random = random.SystemRandom()
"""Independent of the app's seeds, and different in each worker after a fork."""


@dataclass(slots=True)
class Backoff:
    """The state of repeated attempts.

    Attributes:
        failures: Number of consecutive failures.
        retry_at: Time of the next attempt.
        problem: The reason of the failure, as last logged; empty after a success.
    """

    failures: int = 0
    retry_at: float = 0.0
    problem: str = ""

    def fail(self, now: float, retry_after: float | None = None, longest: float = MAX_BACKOFF) -> None:
        """Pause after a failure.

        Args:
            now: The current time.
            retry_after: Seconds that the server asked for.
            longest: Maximum number of seconds of our own pause, plus or minus a quarter.
        """
        self.failures += 1
        pause = min(longest, MIN_BACKOFF * 2.0 ** min(self.failures - 1, 10)) * _random.uniform(0.75, 1.25)
        self.retry_at = now + max(pause, min(MAX_RETRY_AFTER, retry_after or 0.0))
