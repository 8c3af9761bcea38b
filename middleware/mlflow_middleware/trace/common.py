"""What the traces of a route's requests have in common, encoded once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mlflow_middleware.trace import keys, wire


class Common:
    """Name, attributes and tags that many requests' traces share.

    Args:
        name: The root's name, and the trace's.
        attributes: Of the root; values that JSON can hold.
        tags: Of the trace.
        kind: Of the root, as `wire.span` has it.

    Attributes:
        otlp: The attributes, as `wire.attribute` writes them.
        cut_tags: The tags, with the one for the name, as a server stores them.
    """

    __slots__ = ("attributes", "cut_tags", "kind", "name", "otlp", "tags")

    def __init__(
        self, name: str, attributes: Mapping[str, object], tags: Mapping[str, str], kind: int = wire.SERVER
    ) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.tags = tags
        self.otlp = b"".join([wire.attribute(key, value) for key, value in attributes.items()])
        named = {keys.NAME: name, **tags} if name else tags
        self.cut_tags = cut(named, keys.MAX_TAG_KEY, keys.MAX_TAG_VALUE)


@functools.lru_cache(maxsize=512)
def call_common(names: tuple[tuple[str, str], ...]) -> Common:
    """Return what the requests that one model answers have in common, given the attributes that name it."""
    return Common("", dict(names), {})


def cut(values: Mapping[str, Any], longest_key: int, longest_value: int) -> Mapping[str, Any]:
    """Cut tags or metadata as MLflow cuts them."""
    try:
        "".join(values.values())  # which takes nothing but text
        if not values or (max(map(len, values.values())) <= longest_value and max(map(len, values)) <= longest_key):
            return values
    except TypeError:  # something else than text
        pass
    return {key[:longest_key]: str(value)[:longest_value] for key, value in values.items()}
