"""Fewer garbage collections while a large body is parsed.

64 KiB of brackets become 21,000 objects. That many new objects trigger a full collection of the app's heap, which can
block every thread for 0.1 s, although all of them are released a moment later.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 200_000
"""Number of new objects that still triggers a collection."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Raise the threshold of the garbage collector inside the block; a threshold that the app sets meanwhile stays."""
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
