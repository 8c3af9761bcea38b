"""The selection of pending items for one batch, limited in number and in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def fitting(items: Iterable[T], most: int, max_bytes: int, size_of: Callable[[T], int]) -> list[T]:
    """Return the first items that fit into one batch; the first item always fits.

    Args:
        items: The pending items, in order.
        most: Maximum number of items.
        max_bytes: Maximum size of all of them, in bytes.
        size_of: Returns the size of one item, in bytes.
    """
    found: list[T] = []
    size = 0
    for item in islice(items, most):
        size += size_of(item)
        if found and size > max_bytes:
            break
        found.append(item)
    return found
