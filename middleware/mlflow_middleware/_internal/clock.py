"""The clock for all waits.

An app's tests may freeze ``time.monotonic`` or move it by years. Waits in the background must still end meanwhile, and
work that was due must not be years ahead afterwards.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

if hasattr(time, "CLOCK_MONOTONIC"):
    monotonic: Callable[[], float] = functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    """Return the time in seconds; libraries that freeze time do not patch this function."""
else:
    monotonic = functools.partial(time.perf_counter)  # Windows; wrapped, because freezegun replaces names in modules
