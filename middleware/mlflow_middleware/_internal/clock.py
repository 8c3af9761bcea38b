"""The clock of all waits.

Tests freeze ``time.monotonic``, or let it jump by years. Whoever waits meanwhile still has to come to an end, and what
was due before must not lie years ahead afterwards.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

if hasattr(time, "CLOCK_MONOTONIC"):
    monotonic: Callable[[], float] = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    """Tell the time in seconds; libraries that freeze time leave this one alone."""
else:
    monotonic = functools.partial(time.perf_counter)  # Windows; wrapped, as modules' names are what freezegun replaces
