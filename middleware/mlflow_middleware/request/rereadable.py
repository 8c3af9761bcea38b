"""What ASGI allows to be any iterable is made one that can be read again, before anything of ours reads it.

Servers pass on lists, and these stay as they are; test clients and bridges pass on iterators, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any, TypeVar

from mlflow_middleware.exchange import MAX_HEADERS

ORDINARY = frozenset({list, tuple, type(None)})
"""The types of what needs no look: of a list of headers, each pair in it, and an address."""

T = TypeVar("T")


def make_rereadable(scope: dict[str, Any]) -> Iterable[tuple[bytes, bytes]]:
    """Replace what of a scope could be read only once, in place: whoever is around us may read it afterwards.

    Returns:
        The first headers. Of very many, only these are read here, and whoever comes next may read all of them once.
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
    """Return headers that can be read again and again, each pair too: the same ones, if they can be."""
    if hasattr(headers, "__getitem__") and all(hasattr(pair, "__getitem__") for pair in headers):
        return headers
    return [_again(pair) for pair in headers]


def _again(pair: Any) -> Any:
    return tuple(pair) if hasattr(pair, "__iter__") and not hasattr(pair, "__getitem__") else pair
