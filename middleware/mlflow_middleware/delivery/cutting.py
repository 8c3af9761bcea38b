"""Truncation of traces that a server, or a proxy before it, has refused for their size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CUT = "mlflow_middleware.cut"
"""The attribute of a span that lists its truncated attributes."""

SMALL = 1000
"""Maximum size of an attribute that is not truncated, in bytes."""

SMALL_TEXT = 250
"""Maximum length of a tag that is not truncated, in characters."""

_FIRST = ("mlflow.spanInputs", "mlflow.spanOutputs")


def cut(otlp: bytes) -> bytes | None:
    """Truncate the largest inputs and outputs, then other attributes, to half of the size if possible.

    Args:
        otlp: The spans of a trace, as an OTLP request.

    Returns:
        The smaller request; None if nothing is left to truncate.
    """
    from mlflow_middleware.mlflow_bridge.otlp import ExportTraceServiceRequest  # available only with a supported MLflow

    request = ExportTraceServiceRequest.FromString(otlp)
    spans = [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
    found = [(span, attribute) for span in spans for attribute in _attributes(span) if attribute.ByteSize() > SMALL]
    if not found:
        return None
    found.sort(key=lambda pair: (pair[1].key not in _FIRST, -pair[1].ByteSize()))
    left = len(otlp)
    for span, attribute in found:
        if left <= len(otlp) // 2:
            break
        before = attribute.ByteSize()
        attribute.value.string_value = f"… [cut: {before} bytes]"
        _mark(span, attribute.key)
        left -= before - attribute.ByteSize()
    return bytes(request.SerializeToString())


def cut_info(info: bytes) -> bytes | None:
    """Truncate the largest tags, metadata and previews of a trace's info to half of the size if possible.

    Args:
        info: The body of ``POST /api/3.0/mlflow/traces``.

    Returns:
        The smaller info; None if nothing is left to truncate.
    """
    body = json.loads(info)
    ours = body.get("trace", {}).get("trace_info", {})
    places = [ours, ours.get("tags") or {}, ours.get("trace_metadata") or {}]
    found = [(len(value), place, key) for place in places for key, value in place.items() if _is_long(value)]
    left = len(info)
    for size, place, key in sorted(found, key=lambda each: -each[0]):
        if left <= len(info) // 2:
            break
        place[key] = f"… [cut: {size} characters]"
        left -= size
    return json.dumps(body).encode() if found else None


def without_assessments(info: bytes) -> bytes:
    """Return the body of a trace's info without the assessments."""
    if b'"assessments"' not in info:
        return info
    body = json.loads(info)
    body.get("trace", {}).get("trace_info", {}).pop("assessments", None)
    return json.dumps(body).encode()


def _is_long(value: object) -> bool:
    return isinstance(value, str) and len(value) > SMALL_TEXT


def _attributes(span: Any) -> Iterator[Any]:
    yield from span.attributes
    for event in span.events:
        yield from event.attributes


def _mark(span: Any, key: str) -> None:
    for attribute in span.attributes:
        if attribute.key == CUT:
            attribute.value.string_value += f", {key}"
            return
    span.attributes.add(key=CUT).value.string_value = key
