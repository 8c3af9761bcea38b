"""The common part of the traces of a route's requests, encoded once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mlflow_middleware.trace import keys, wire


class Common:
    """Name, attributes and tags that the traces of many requests share.

    Args:
        name: The name of the root and of the trace.
        attributes: The root's attributes; values that JSON can represent.
        tags: The trace's tags.
        kind: The root's kind; see `wire.span`.

    Attributes:
        otlp: The attributes, as encoded by `wire.attribute`.
        cut_tags: The tags with the one for the name, truncated to a server's limits.
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
    """Return the common part of the requests to one model, given the attributes that identify it."""
    return Common("", dict(names), {})


def cut(values: Mapping[str, Any], longest_key: int, longest_value: int) -> Mapping[str, Any]:
    """Truncate tags or metadata like MLflow."""
    try:
        "".join(values.values())  # accepts only text
        if not values or (max(map(len, values.values())) <= longest_value and max(map(len, values)) <= longest_key):
            return values
    except TypeError:  # a value that is not text
        pass
    return {key[:longest_key]: str(value)[:longest_value] for key, value in values.items()}
