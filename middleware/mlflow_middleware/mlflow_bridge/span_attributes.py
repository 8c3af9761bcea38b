"""A span's attributes in their stored form: MLflow's are JSON texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from json.encoder import encode_basestring
from sys import getsizeof
from typing import Any

from mlflow.tracing.utils import dump_span_attribute_value
from opentelemetry.sdk.trace import ReadableSpan, Span


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes in their stored form: MLflow's are JSON texts. Do not change the dict."""
    bounded: Any = span._attributes
    plain: dict[str, Any] = getattr(bounded, "_dict", bounded)  # its own iterators copy under a lock
    return plain


def size_of_attributes(span: ReadableSpan) -> int:
    """Return the approximate size of attributes, events and status, in bytes."""
    values = list(attributes_of(span).values())
    size = getsizeof(span.status.description) + sum(map(getsizeof, values)) + _ITEM * len(values)
    for event in span.events:
        found = list((event.attributes or {}).values())
        size += _EVENT + sum(map(getsizeof, found)) + _ITEM * len(found)
    return size


_ITEM, _EVENT = 130, 600
"""Approximate overhead of an attribute and of an event, in bytes."""


def to_texts(attributes: Mapping[str, object]) -> dict[str, str]:
    """Convert attributes to the JSON texts that MLflow stores."""
    return {key: _to_json(value) for key, value in attributes.items()}


def set_texts(span: Span, texts: Mapping[str, str]) -> None:
    """Set attributes of an open span, given their JSON texts."""
    span.set_attributes(texts)


def _to_json(value: object) -> str:
    if type(value) is str:
        return encode_basestring(value)
    return str(value) if type(value) is int else str(dump_span_attribute_value(value))


_PLAIN = re.compile(r'"[^"\\\x00-\x1f]*"')
"""A JSON string without escapes."""


def decoded(text: Any) -> Any:
    """Return the value that MLflow reads from a stored attribute: that of a JSON text, and other values unchanged."""
    if not text:
        return None
    if type(text) is str and _PLAIN.fullmatch(text):
        return text[1:-1]
    try:
        return json.loads(text)
    except Exception:
        return text


def sendable(value: Any) -> Any:
    """Return a value without parts that protobuf, JSON or PostgreSQL refuse: half a surrogate pair, NUL, or an integer
    of more than 64 bits."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\0", "\ufffd")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, dict):
        return {sendable(key): sendable(inner) for key, inner in value.items()}
    return [sendable(inner) for inner in value] if isinstance(value, list | tuple) else value


def is_local_root(span: ReadableSpan) -> bool:
    """Return whether a span is the root of its trace, as far as this process knows the trace."""
    return span.parent is None or span.parent.is_remote
