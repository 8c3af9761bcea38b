"""OTLP messages as bytes, encoded field by field.

The encoding: https://protobuf.dev/programming-guides/encoding/. The numbers of the fields:
https://github.com/open-telemetry/opentelemetry-proto (common/v1/common.proto, trace/v1/trace.proto,
collector/trace/v1/trace_service.proto).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Any

_ONE_BYTE = [bytes([number]) for number in range(128)]
_times = struct.Struct("<cQcQ").pack
_double = struct.Struct("<cd").pack

_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1


@functools.lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    if number < 128:
        return _ONE_BYTE[number]
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _sized(content: bytes) -> bytes:
    size = len(content)
    return (_ONE_BYTE[size] if size < 128 else _varint(size)) + content


def _text(text: str) -> bytes:
    return _sized(text.encode("utf-8", "replace"))  # half a surrogate pair is not valid UTF-8


def request(resource: bytes, spans: list[bytes]) -> bytes:
    """Encode an ``ExportTraceServiceRequest`` with spans of one resource. Concatenated requests form one request.

    Args:
        resource: An encoded ``Resource``.
        spans: Encoded ``Span`` messages.
    """
    scope_spans = b"".join([b"\x12" + _sized(span) for span in spans])
    return b"\x0a" + _sized(b"\x0a" + _sized(resource) + b"\x12" + _sized(scope_spans))


SERVER, CONSUMER = 2, 5
"""The kinds of spans for requests and jobs (opentelemetry/proto/trace/v1/trace.proto: SpanKind)."""


def span(
    ids: tuple[int, int],
    parent: int | None,
    name: str,
    times: tuple[int, int],
    status: tuple[int, str],
    rest: bytes,
    kind: int = 0,
) -> bytes:
    """Encode a ``Span``.

    Args:
        ids: The ids of the trace and of the span.
        parent: The id of the parent; None for a root.
        name: The name.
        times: Start and end, in nanoseconds since the epoch.
        status: Code and message.
        rest: Further encoded fields: see `attribute`.
        kind: The kind; 0 for none.
    """
    code, message = status
    parts = [
        b"\x0a\x10" + ids[0].to_bytes(16, "big") + b"\x12\x08" + ids[1].to_bytes(8, "big"),
        b"" if parent is None else b"\x22\x08" + parent.to_bytes(8, "big"),
        b"\x2a" + _text(name) + (b"\x30" + _varint(kind) if kind else b""),
        _times(b"\x39", times[0], b"\x41", times[1]),
        rest,
        b"\x7a" + _sized((b"\x12" + _text(message) if message else b"") + (b"\x18" + _varint(code) if code else b"")),
    ]
    return b"".join(parts)


def attribute(key: str, value: Any) -> bytes:
    """Encode a ``Span`` with only this attribute; concatenated messages form one span with all attributes."""
    if type(value) is str:
        start, text = _start(key), value.encode("utf-8", "replace")
        size = len(text)
        if len(start) + size < _SHORT:  # each size fits into one byte
            return b"\x4a%c%b\x12%c\x0a%c%b" % (len(start) + 4 + size, start, 2 + size, size, text)
        return b"\x4a" + _sized(start + b"\x12" + _sized(b"\x0a" + _sized(text)))
    return b"\x4a" + _sized(_key_value(key, value))


def event(time: int, name: str, attributes: Mapping[str, Any]) -> bytes:
    """Encode a ``Span`` with only this event.

    Args:
        time: Nanoseconds since the epoch.
        name: The name.
        attributes: The attributes.
    """
    content = b"\x09" + time.to_bytes(8, "little") + b"\x12" + _text(name) + _attributes(b"\x1a", attributes)
    return b"\x5a" + _sized(content)


def link(trace_id: int, span_id: int, attributes: Mapping[str, Any]) -> bytes:
    """Encode a ``Span`` with only a link to another span."""
    ids = b"\x0a\x10" + trace_id.to_bytes(16, "big") + b"\x12\x08" + span_id.to_bytes(8, "big")
    return b"\x6a" + _sized(ids + _attributes(b"\x22", attributes))


def _attributes(tag: bytes, attributes: Mapping[str, Any]) -> bytes:
    return b"".join([tag + _sized(_key_value(key, value)) for key, value in attributes.items()])


_SHORT = 120


@functools.lru_cache(maxsize=1024)
def _start(key: str) -> bytes:
    """Encode the key of a ``KeyValue``."""
    return b"\x0a" + _text(key)


def _key_value(key: str, value: Any) -> bytes:
    return b"\x0a" + _text(key) + b"\x12" + _sized(_any_value(value))


def _any_value(value: Any) -> bytes:
    """Encode a value like ``mlflow.tracing.utils.otlp``; an integer of more than 64 bits, which it refuses, as text."""
    kind = type(value)
    if kind is str:
        return b"\x0a" + _text(value)
    if kind is dict:
        return b"\x32" + _sized(b"".join([b"\x0a" + _sized(_key_value(str(key), of)) for key, of in value.items()]))
    if kind is list or kind is tuple:
        return b"\x2a" + _sized(b"".join([b"\x0a" + _sized(_any_value(of)) for of in value]))
    if value is None:
        return b""
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int and _MIN_INTEGER <= value <= _MAX_INTEGER:
        return b"\x18" + _varint(value & (2**64 - 1))
    if kind is float:
        return _double(b"\x21", value)
    if kind is bytes:
        return b"\x3a" + _sized(value)
    return b"\x0a" + _text(str(value))
