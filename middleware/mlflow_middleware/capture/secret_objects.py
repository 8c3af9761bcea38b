"""Secrets in JSON whose key is the value of another entry, as in ``{"name": "Authorization", "value": …}``."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from mlflow_middleware.capture.secret_keys import Keys, is_secret

_LOCATION, _BESIDE_LOCATION = "loc", ("input", "ctx")
"""Keys of the location, and of the rejected value, in errors of FastAPI and Pydantic."""

_NAMES = (
    *("name", "key", "header", "field", "param", "parameter", "path", "property", "variable", "attribute", "label"),
    *("id", "k", "n", "pointer", "option", "source", "title", "parameterkey"),
)
_VALUES = (
    "value",
    "values",
    "val",
    "v",
    "parametervalue",
    "default",
    "example",
    "received",
    "rejectedvalue",
    "attemptedvalue",
    "input",
)
"""Keys of entries that name something, and keys of entries with its value."""

_MAX_NAME = 100
_SCHEMA = frozenset(
    [
        "type",
        "title",
        "description",
        "format",
        "minLength",
        "maxLength",
        "pattern",
        "writeOnly",
        "readOnly",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "nullable",
        "items",
        "properties",
        "required",
        "additionalProperties",
        "minimum",
        "maximum",
        "deprecated",
    ]
)
"""Keys of a JSON schema, which may describe a secret, as in the tools of a chat, but does not contain it."""

_TYPES = ("string", "object", "array", "integer", "number", "boolean")

_WORD = re.compile(r"[a-z_-]{1,30}")


def named_secrets(value: dict[str, Any], keys: Keys) -> Collection[str]:
    """Return the keys of an object's entries that are secrets because another entry names one."""
    if _LOCATION in value and isinstance(value[_LOCATION], (list, tuple)) and _names_secret(value[_LOCATION], keys):
        return _BESIDE_LOCATION
    lower = {key.lower(): key for key in value}
    given = [lower[key] for key in _VALUES if key in lower]
    if not given:
        return ()
    for each in _NAMES:
        name = value.get(lower.get(each, each))
        if isinstance(name, dict):  # JSON:API: {"source": {"pointer": …}}
            name = name.get("pointer") or name.get("parameter") or name.get("header")
        name = name[-1] if isinstance(name, list) and name else name
        if isinstance(name, str) and len(name) <= _MAX_NAME and (kind := keys.kind(name)):
            return [key for key in given if is_secret(kind, value[key])]
    return ()


_COLUMNS, _ROWS = ("columns", "headers", "fields", "header"), ("data", "rows", "values")
"""Keys of a table's columns and rows, as in pandas' split orientation and MLflow's ``dataframe_split``."""


def without_columns(value: dict[str, Any], keys: Keys, instead: str) -> dict[str, Any]:
    """Return a table with the columns redacted whose names mark a secret; the same object if it is not a table."""
    columns: list[Any] = next((value[key] for key in _COLUMNS if isinstance(value.get(key), list)), [])
    kinds = {place: kind for place, name in enumerate(columns) if isinstance(name, str) and (kind := keys.kind(name))}
    tables = [key for key in _ROWS if kinds and isinstance(value.get(key), list)]
    if not tables:
        return value

    def hidden(row: Any) -> Any:
        if not isinstance(row, list):
            return row
        return [instead if is_secret(kinds.get(place, ""), cell) else cell for place, cell in enumerate(row)]

    return {**value, **{key: [hidden(row) for row in value[key]] for key in tables}}


def after_names(values: list[Any], keys: Keys) -> Collection[int]:
    """Return the indexes that follow a secret's name in a list, as in ``["Authorization", …]`` or a command line."""
    hidden = {
        index + 1
        for index, name in enumerate(values[:-1])
        if isinstance(name, str)
        and len(name) <= _MAX_NAME
        and isinstance(values[index + 1], str)
        and " " not in name
        and is_secret(keys.kind(name), values[index + 1])
        and (not _WORD.fullmatch(values[index + 1]) or name[:2] == "--")
    }
    return {index for index in hidden if index - 1 not in hidden}


def is_ordinary(key: str, value: Any, beside: dict[str, Any]) -> bool:
    """Return whether a value under a secret's key is not a secret: a language model's token, or a schema."""
    if isinstance(value, dict) and value.keys() <= _SCHEMA:
        return value.get("type") in _TYPES or not value.keys().isdisjoint(("$ref", "anyOf", "oneOf", "allOf"))
    return "logprob" in beside and key == "token"


def _names_secret(location: Collection[Any], keys: Keys) -> bool:
    return any(keys.kind(name) for name in location if isinstance(name, str))
