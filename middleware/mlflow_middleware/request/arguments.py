"""The arguments and the result of a job, as the bodies that a request would have."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_middleware._internal.guard import guarded

_OWN = ("self", "cls", "ctx")
"""What a first argument is called that the caller has not given: Celery's bound tasks, arq's context."""

MAX_DEPTH = 32
"""Objects in each other that are shown of what `json` refuses."""


@guarded
def arguments_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names; those of ``**kwargs`` stand beside the others."""
    try:
        signature = inspect.signature(function)
        found = signature.bind_partial(*args, **kwargs).arguments
    except (
        TypeError,
        ValueError,
    ):  # the call is about to fail by itself; C code has no signature
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
    """JSON of a value, with text for what JSON does not know."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError):  # odd keys; it holds itself; too deep
        text = json.dumps(_simple(value, ()), ensure_ascii=False)
    return text.encode("utf-8", "replace")


def _simple(value: Any, around: tuple[int, ...]) -> Any:
    """JSON of what `json` refuses, key by key: as one text, it would hide its keys from redaction."""
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
    """JSON for what JSON does not know; the name of its type where the app's own code for that fails."""
    try:
        return _told(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _told(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{value.nbytes if isinstance(value, memoryview) else len(value)} bytes>"
    if hasattr(value, "model_dump"):  # Pydantic's
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)
