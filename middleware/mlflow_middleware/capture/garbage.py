"""Fewer garbage collections while a large body is read.

64 KiB of brackets become 21,000 objects. Python takes so many new ones as a sign to look for garbage in all that the
app has, which holds every thread for 0.1 s; and all of these objects are gone a moment later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 200_000
"""New objects from which on a collection begins all the same."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Let only many new objects begin a collection. What the app itself sets meanwhile stays."""
    before = gc.get_threshold()
    if not 0 < before[0] < MANY:
        yield
        return
    ours = (MANY, *before[1:])
    gc.set_threshold(*ours)
    try:
        yield
    finally:
        if gc.get_threshold() == ours:
            gc.set_threshold(*before)
