"""A job's arguments and result in the form of a request's and a response's body."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_middleware._internal.guard import guarded

_OWN = ("self", "cls", "ctx")
"""Names of a first argument that the caller does not pass: Celery's bound tasks, arq's context."""

MAX_DEPTH = 32
"""Maximum number of levels of nesting that are converted of a value that `json` rejects."""


@guarded
def arguments_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, including ``**kwargs``; positional ones of a C function as ``args``."""
    try:
        signature = inspect.signature(function)
        found = signature.bind_partial(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the call will fail, or a C function has no signature
        return {"args": list(args), **kwargs} if args else dict(kwargs)
    first = next(iter(signature.parameters), "")
    if first in _OWN:
        found.pop(first, None)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.update(found.pop(name, {}))
    return dict(found)


@guarded
def as_body(value: object) -> bytes:
    """Return a value as JSON; objects that JSON does not support become text."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError):  # unsupported keys; circular; too deep
        text = json.dumps(_simple(value, ()), ensure_ascii=False)
    return text.encode("utf-8", "replace")


def _simple(value: Any, around: tuple[int, ...]) -> Any:
    """Return a value that `json` rejects as plain objects; a single text would hide its keys from redaction."""
    if value is None or isinstance(value, str | int | float):
        return value
    if id(value) in around or len(around) >= MAX_DEPTH:
        return "..."
    inside = (*around, id(value))
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else _text(key): _simple(each, inside) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_simple(each, inside) for each in value]
    return _simple(_plain(value), inside)


def _text(key: Any) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(_plain(key))


def _plain(value: Any) -> Any:
    """Return a plain value for an unsupported object; the name of its type if the app's own code fails."""
    try:
        return _converted(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _converted(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{value.nbytes if isinstance(value, memoryview) else len(value)} bytes>"
    if hasattr(value, "model_dump"):  # a Pydantic model
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)
