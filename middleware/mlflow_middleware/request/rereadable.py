"""Conversion of one-shot iterables in ASGI messages, so that they can be read more than once.

ASGI allows any iterable. Servers pass lists, which are left unchanged; test clients and bridges also pass iterators.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any, TypeVar

from mlflow_middleware.exchange import MAX_HEADERS

T = TypeVar("T")


def make_rereadable(scope: dict[str, Any]) -> Iterable[tuple[bytes, bytes]]:
    """Replace one-shot iterables in a scope, in place, since outer layers may read them afterwards.

    Returns:
        The first headers. If there are more than `MAX_HEADERS`, the rest stays unread in the scope's iterator.
    """
    for name in ("server", "client"):
        if name in scope:
            scope[name] = _again(scope[name])
    if "headers" not in scope:
        return []
    if hasattr(scope["headers"], "__getitem__"):
        headers = scope["headers"] = rereadable(scope["headers"])
        return headers
    given = iter(scope["headers"])
    first = [_again(pair) for pair in islice(given, MAX_HEADERS + 1)]
    scope["headers"] = first if len(first) <= MAX_HEADERS else chain(first, given)
    return first


def rereadable(headers: Iterable[T]) -> Iterable[T]:
    """Return headers that can be read repeatedly, including each pair; the same object if it already can."""
    if hasattr(headers, "__getitem__") and all(hasattr(pair, "__getitem__") for pair in headers):
        return headers
    return [_again(pair) for pair in headers]


def _again(pair: Any) -> Any:
    return tuple(pair) if hasattr(pair, "__iter__") and not hasattr(pair, "__getitem__") else pair
