"""Spans as an OTLP request: what MLflow's own exporter would send, at a fraction of its cost.

MLflow goes over each span several times, by way of protobuf messages. What is rare (events, links) takes MLflow's own
way.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Container, Sequence
from typing import Any

from mlflow.entities import LiveSpan
from mlflow.entities import Span as MlflowSpan
from mlflow.tracing.utils.otlp import resource_to_otel_proto
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest as ExportTraceServiceRequest,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode

from mlflow_middleware.mlflow_bridge import keys, wire
from mlflow_middleware.mlflow_bridge.span_attributes import attributes_of, decoded, sendable


def spans_to_otlp(spans: Sequence[LiveSpan], as_text: Container[str]) -> bytes:
    """Ended spans of one trace, as an OTLP request (protobuf).

    Args:
        spans: The spans.
        as_text: Attributes, as they are stored, of which the JSON is sent as text: see `sent`.
    """
    resource = resource_message(spans[0]._span.resource) if spans else b""
    return wire.request(resource, [span_bytes(each, as_text) for each in spans])


def sent(text: str) -> Any:
    """What stands for a JSON text in OTLP: for an object or array, the text itself.

    A tracking server takes text that is JSON of an object or array for just that (mlflow/tracing/otel/translation:
    ``sanitize_attributes``). To write it as nested messages takes 2.5 us for each value in it, and the server longer to
    read them.
    """
    return text if text[:1] in ("{", "[") else decoded(text)


def undo_text(span: MlflowSpan) -> None:
    """Undo `sent` for the inputs and outputs of a span read from OTLP, where the server has no part in reading it."""
    attributes: dict[str, Any] = span._span._attributes
    for key in (keys.INPUTS, keys.OUTPUTS, keys.USAGE):
        if type(text := decoded(attributes.get(key))) is str and type(decoded(text)) in (dict, list):
            span._span._attributes = attributes = {**attributes, key: text}


def span_bytes(span: LiveSpan, as_text: Container[str]) -> bytes:
    otel = span._span
    try:
        if otel.links or otel.events:
            return bytes(_with_links(span.to_immutable_span().to_otel_proto(), otel.links).SerializeToString())
        attributes = [
            wire.attribute(key, sent(text)) if text in as_text else _attribute(key, text, decoded(text))
            for key, text in list(attributes_of(otel).items())
        ]
        parent = otel.parent.span_id if otel.parent is not None else None
        status = (otel.status.status_code, otel.status.description)
        return _span_message(otel, parent, status, attributes, _kind(otel.kind))
    except Exception:  # it holds what protobuf refuses
        return bytes(_sendable_span(span.to_immutable_span()).SerializeToString())


def _with_links(message: Any, links: Sequence[Link]) -> Any:
    """A span as protobuf with its links, which MLflow before 3.13 leaves out."""
    for link in links if not message.links else ():
        ids = link.context
        message.links.add(trace_id=ids.trace_id.to_bytes(16, "big"), span_id=ids.span_id.to_bytes(8, "big"))
    return message


@functools.cache
def _kind(kind: SpanKind) -> int:
    """A span's kind in OTLP, as MLflow writes it: not at all before 3.18."""
    plain = ReadableSpan("", SpanContext(1, 1, is_remote=False), attributes={}, kind=kind, start_time=0, end_time=0)
    return int(MlflowSpan(plain).to_otel_proto().kind)


def root_message(span: Any, status: tuple[StatusCode, str | None], attributes: list[bytes]) -> bytes:
    """A ``Span`` of a root: see `_span_message`."""
    return _span_message(span, None, status, attributes, _kind(SpanKind.INTERNAL))


def _span_message(
    span: Any, parent: int | None, status: tuple[StatusCode, str | None], attributes: list[bytes], kind: int
) -> bytes:
    """A ``Span``, given its ids, name and times as ``ReadableSpan`` has them, and its attributes as messages."""
    ids, times = (span.context.trace_id, span.context.span_id), (span.start_time, span.end_time)
    code, description = status
    return wire.span(ids, parent, span.name, times, (code.value, description or ""), b"".join(attributes), kind)


def _attribute(key: str, text: Any, value: Any) -> bytes:
    """An attribute of a span, given as it is stored and as what that stands for."""
    if type(value) is str and len(value) + len(key) <= _SHORT:
        return known_attribute(key, value)
    return wire.attribute(key, text if _nests_too_deeply(value, text) else value)


_SHORT = 200
"""Characters of an attribute, with its key, that may be worth remembering."""


@functools.lru_cache(maxsize=4096, typed=True)
def known_attribute(key: str, value: object) -> bytes:
    """Most attributes of a request have values that others had too: 0.2 us for each, instead of 0.6 to 1.5."""
    return wire.attribute(key, value)


MAX_NESTING = 26
"""Levels of objects and arrays, each of which takes three levels of messages; protobuf parsers give up at 100."""


def _nests_too_deeply(value: Any, text: Any) -> bool:
    """Whether a server would refuse the trace for this value; then it goes as text."""
    if not isinstance(value, dict | list) or type(text) is not str or text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


_resources: dict[int, tuple[Resource, bytes]] = {}


def resource_message(resource: Resource) -> bytes:
    """The resource as a message, made once: it is the same object for all spans of a tracer provider."""
    known = _resources.get(id(resource))
    if known is None or known[0] is not resource:
        _resources.clear()
        known = _resources[id(resource)] = (resource, resource_to_otel_proto(resource).SerializeToString())
    return known[1]


def _sendable_span(span: MlflowSpan) -> Any:
    try:
        return span.to_otel_proto()
    except Exception:
        plain = span.to_dict()
        plain["attributes"] = {key: json.dumps(sendable(decoded(text))) for key, text in plain["attributes"].items()}
        return MlflowSpan.from_dict(sendable(plain)).to_otel_proto()
