"""How many of what waits go together: bounded in number and in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def fitting(items: Iterable[T], most: int, max_bytes: int, size_of: Callable[[T], int]) -> list[T]:
    """The first of them that fit together; the first one always does.

    Args:
        items: What waits, the next one first.
        most: How many at most.
        max_bytes: Bytes of all of them at most.
        size_of: The bytes of one.
    """
    found: list[T] = []
    size = 0
    for item in islice(items, most):
        size += size_of(item)
        if found and size > max_bytes:
            break
        found.append(item)
    return found
