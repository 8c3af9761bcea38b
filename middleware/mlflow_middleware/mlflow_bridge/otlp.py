"""Spans as an OTLP request, equal to that of MLflow's own exporter at a fraction of its cost.

MLflow converts each span several times, through protobuf messages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Sequence
from typing import Any

from mlflow.entities import LiveSpan
from mlflow.entities import Span as MlflowSpan
from mlflow.tracing.utils.otlp import resource_to_otel_proto
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest as ExportTraceServiceRequest,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status

from mlflow_middleware.capture.spans import redacted, redacted_text
from mlflow_middleware.mlflow_bridge import readable
from mlflow_middleware.mlflow_bridge.span_attributes import attributes_of, decoded
from mlflow_middleware.trace import keys, wire


def spans_to_otlp(spans: Sequence[LiveSpan], encode: Callable[[LiveSpan], bytes] | None = None) -> bytes:
    """Encode the ended spans of one trace as an OTLP request (protobuf)."""
    resource = resource_message(spans[0]._span.resource) if spans else b""
    return wire.request(resource, list(map(encode or span_bytes, spans)))


def redacted_entity(span: LiveSpan) -> MlflowSpan:
    """Return a redacted span as MLflow's own search would return it."""
    entity = span.to_immutable_span()
    otel: Any = entity._span
    otel._attributes = redacted(attributes_of(otel))
    otel._events = [Event(each.name, redacted(each.attributes or {}), each.timestamp) for each in otel.events]
    otel._status = Status(otel.status.status_code, redacted_text(otel.status.description))
    return entity


SENT_AS_TEXT = frozenset({keys.INPUTS, keys.OUTPUTS, keys.USAGE, keys.COST})
"""The attributes of a request's spans that are sent as text if possible."""


def undo_text(span: MlflowSpan) -> None:
    """Restore the texts of attributes that OTLP changes, for a span that no server reads from OTLP."""
    attributes: dict[str, Any] = span._span._attributes
    plain = {key: text for key, each in attributes.items() if (text := readable.unquoted(each)) is not None}
    for key in SENT_AS_TEXT:
        if type(text := decoded(attributes.get(key))) is str and type(decoded(text)) in (dict, list):
            plain[key] = text
    if plain:
        span._span._attributes = {**attributes, **plain}


def span_bytes(span: LiveSpan, as_text: Container[str] = ()) -> bytes:
    """Encode a span of MLflow as a ``Span``, with the given attributes as text if possible: see `as_sent`."""
    otel = span._span
    times: Any = otel.start_time, otel.end_time
    parts = [
        attribute(key, readable.value_of(key, text, as_text=key in as_text))
        for key, text in list(redacted(attributes_of(otel)).items())
    ]
    parts += [event_bytes(event) for event in otel.events]
    parts += [link_bytes(link) for link in otel.links]
    return wire.span(
        (otel.context.trace_id, otel.context.span_id),
        otel.parent.span_id if otel.parent is not None else None,
        otel.name.replace("\0", "\ufffd"),  # PostgreSQL cannot store NUL
        times if 0 <= times[0] <= times[1] <= LATEST else _storable(*times),
        (otel.status.status_code.value, redacted_text(otel.status.description) or ""),
        b"".join(parts),
        _kind(otel.kind),
    )


def event_bytes(event: Event) -> bytes:
    """Encode an event as a field of a ``Span``."""
    return wire.event(_storable(event.timestamp, event.timestamp)[0], event.name, redacted(event.attributes or {}))


def _storable(start: Any, end: Any) -> tuple[int, int]:
    """Return times that a server can store; apps may set any."""
    return min(max(0, start), LATEST), min(max(0, end), LATEST)


LATEST = 2**63 - 1
"""The latest time that fits a 64-bit column, in nanoseconds since the epoch."""


def link_bytes(link: Link) -> bytes:
    """Encode a link as a field of a ``Span``; MLflow before 3.13 omits links."""
    return wire.link(link.context.trace_id, link.context.span_id, redacted(link.attributes or {}))


@functools.cache
def _kind(kind: SpanKind) -> int:
    """Return a span's kind in OTLP as MLflow writes it: none before 3.18."""
    plain = ReadableSpan("", SpanContext(1, 1, is_remote=False), attributes={}, kind=kind, start_time=0, end_time=0)
    return int(MlflowSpan(plain).to_otel_proto().kind)


def attribute(key: str, value: Any) -> bytes:
    """Encode an attribute as a field of a ``Span``."""
    kind = type(value)
    if kind is int or (kind is str and len(value) <= _SHORT):
        return _known_attribute(key, value)
    return wire.attribute(key, value)


_SHORT = 200
"""Maximum length of an attribute that is cached, in characters."""


@functools.lru_cache(maxsize=4096)
def _known_attribute(key: str, value: int | str) -> bytes:
    """Encode an attribute, from a cache: most values have occurred in other requests."""
    return wire.attribute(key, value)


_resources: dict[int, tuple[Resource, bytes]] = {}


def resource_message(resource: Resource) -> bytes:
    """Return the encoded resource, cached: all spans of a tracer provider share the object."""
    known = _resources.get(id(resource))
    if known is None or known[0] is not resource:
        _resources.clear()
        known = _resources[id(resource)] = (resource, resource_to_otel_proto(resource).SerializeToString())
    return known[1]
