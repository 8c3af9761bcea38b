"""A finished trace as it goes over the wire: what MLflow's own exporter would send, at a fraction of its cost.

MLflow goes over each span and each trace info several times, by way of protobuf messages and their JSON. That is about
1 ms a trace of two spans on a slow core; here it is about a tenth. What is rare (events, links, assessments) takes
MLflow's own way.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from mlflow import entities
from mlflow.entities import LiveSpan, Trace, TraceData
from mlflow.entities import Span as MlflowSpan
from mlflow.entities.trace_info import TraceInfo
from mlflow.protos.service_pb2 import StartTraceV3
from mlflow.tracing.constant import MAX_CHARS_IN_TRACE_INFO_METADATA as MAX_METADATA
from mlflow.tracing.constant import MAX_CHARS_IN_TRACE_INFO_TAGS_KEY as MAX_TAG_KEY
from mlflow.tracing.constant import MAX_CHARS_IN_TRACE_INFO_TAGS_VALUE as MAX_TAG_VALUE
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey
from mlflow.tracing.utils import add_size_stats_to_trace_metadata, dump_span_attribute_value
from mlflow.tracing.utils.otlp import resource_to_otel_proto
from mlflow.utils.proto_json_utils import message_to_json
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.trace import Link, SpanContext, StatusCode

from mlflow_middleware.mlflow_seam import wire

_STATUS_NAMES = {
    StatusCode.UNSET: "STATUS_CODE_UNSET",
    StatusCode.OK: "STATUS_CODE_OK",
    StatusCode.ERROR: "STATUS_CODE_ERROR",
}
"""https://github.com/open-telemetry/opentelemetry-proto, opentelemetry/proto/trace/v1/trace.proto, Status.StatusCode"""


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """The attributes as they are stored: MLflow's are JSON texts. Not to be changed."""
    bounded: Any = span._attributes
    plain: dict[str, Any] = getattr(bounded, "_dict", bounded)  # its own iterators copy, under a lock
    return plain


def size_of_attributes(span: ReadableSpan) -> int:
    """Characters of all attribute values."""
    values = list(attributes_of(span).values())
    try:
        return sum(map(len, values))
    except TypeError:  # a number, set with OpenTelemetry's own API
        return sum(len(str(value)) for value in values)


def set_attributes(span: Span, attributes: Mapping[str, object]) -> None:
    """Set attributes of a span that has not ended, as MLflow stores them: JSON texts.

    All at once, without what MLflow and OpenTelemetry check of each: 1 us for each, instead of 13.
    """
    set_texts(span, {key: _to_json(value) for key, value in attributes.items()})


def set_texts(span: Span, texts: Mapping[str, str]) -> None:
    """As `set_attributes`, of values that are JSON texts already."""
    bounded: Any = span._attributes
    plain: dict[str, Any] | None = getattr(bounded, "_dict", None)
    if plain is not None and span.end_time is not None:  # the SDK takes no more
        with bounded._lock:
            plain.update((key, text[: bounded.max_value_len]) for key, text in texts.items())
        return
    full = plain is None or (bounded.maxlen is not None and len(plain) + len(texts) > bounded.maxlen)
    if plain is None or full or bounded.max_value_len is not None:  # another SDK, or a limit that is reached
        span.set_attributes(texts)
        return
    with bounded._lock:
        plain.update(texts)


def _to_json(value: object) -> str:
    if type(value) is str:
        return encode_basestring(value)
    return str(value) if type(value) is int else str(dump_span_attribute_value(value))


def spans_to_otlp(spans: Sequence[LiveSpan], as_text: Container[str]) -> bytes:
    """Ended spans of one trace, as an OTLP request (protobuf).

    Args:
        spans: The spans.
        as_text: Attributes, as they are stored, of which the JSON is sent as text: see `_sent`.
    """
    resource = _resource(spans[0]._span.resource) if spans else b""
    return wire.request(resource, [_span(each, as_text) for each in spans])


class Common:
    """What many requests' traces have in common, encoded once: for each of them, 40 us less.

    Args:
        name: The root's name, and the trace's.
        attributes: Of the root; values that JSON can hold.
        tags: Of the trace.

    Attributes:
        otlp: The attributes, as `wire.attribute` writes them.
        cut_tags: The tags, with the one for the name, as a server stores them.
    """

    __slots__ = ("attributes", "cut_tags", "name", "otlp", "tags")

    def __init__(self, name: str, attributes: Mapping[str, object], tags: Mapping[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.tags = tags
        self.otlp = b"".join([wire.attribute(key, value) for key, value in attributes.items()])
        named = {TraceTagKey.TRACE_NAME: name, **tags} if name else tags
        self.cut_tags = _cut(named, MAX_TAG_KEY, MAX_TAG_VALUE)


@dataclass(slots=True)
class Plain:
    """A trace that is a root without parent, events and links, as data; named as in ``ReadableSpan`` and ``TraceInfo``.

    Attributes:
        trace_id: MLflow's.
        name: The root's name.
        context: Its ids.
        start_time: Nanoseconds since the epoch.
        end_time: The same.
        error: What its error status says; None for OK.
        common: More attributes and tags.
        attributes: Texts and numbers, and what else JSON can hold.
        texts: Attributes that are JSON already.
        tags: The trace's.
        trace_metadata: The same.
        client_request_id: The same.
        request_preview: The same.
        response_preview: The same.
    """

    trace_id: str
    name: str
    context: SpanContext
    start_time: int
    end_time: int
    error: str | None
    common: Common
    attributes: dict[str, Any]
    texts: dict[str, str]
    tags: dict[str, str]
    trace_metadata: dict[str, str]
    client_request_id: str | None
    request_preview: str | None
    response_preview: str | None


def encoded(root: Plain, resource: Resource, experiment_id: str) -> tuple[bytes, bytes]:
    """As `spans_to_otlp` and `info_to_json`, of a trace that is data."""
    attributes = [root.common.otlp]
    attributes += [
        _known_attribute(key, value) if type(value) is int else wire.attribute(key, value)
        for key, value in root.attributes.items()
    ]
    attributes += [wire.attribute(key, _sent(text)) for key, text in root.texts.items()]
    code = StatusCode.OK if root.error is None else StatusCode.ERROR
    span = _message(root, None, (code, root.error), attributes)
    return wire.request(_resource(resource), [span]), _info_of_plain(root, experiment_id, _size_of_plain(root, span))


def _sent(text: str) -> Any:
    """What stands for a JSON text in OTLP: for an object or array, the text itself.

    A tracking server takes text that is JSON of an object or array for just that (mlflow/tracing/otel/translation:
    ``sanitize_attributes``). To write it as nested messages takes 2.5 us for each value in it, and the server longer to
    read them.
    """
    return text if text[:1] in ("{", "[") else _decoded(text)


def undo_text(span: MlflowSpan) -> None:
    """Undo `_sent` for the inputs and outputs of a span read from OTLP, where the server has no part in reading it."""
    attributes: dict[str, Any] = span._span._attributes
    for key in (SpanAttributeKey.INPUTS, SpanAttributeKey.OUTPUTS, SpanAttributeKey.CHAT_USAGE):
        if type(text := _decoded(attributes.get(key))) is str and type(_decoded(text)) in (dict, list):
            span._span._attributes = attributes = {**attributes, key: text}


def _span(span: LiveSpan, as_text: Container[str]) -> bytes:
    otel = span._span
    try:
        if otel.links or otel._events:
            return bytes(_with_links(span.to_immutable_span().to_otel_proto(), otel.links).SerializeToString())
        attributes = [
            wire.attribute(key, _sent(text)) if text in as_text else _attribute(key, text, _decoded(text))
            for key, text in list(attributes_of(otel).items())
        ]
        parent = otel.parent.span_id if otel.parent is not None else None
        return _message(otel, parent, (otel.status.status_code, otel.status.description), attributes)
    except Exception:  # it holds what protobuf refuses
        return bytes(_sendable_span(span.to_immutable_span()).SerializeToString())


def _with_links(message: Any, links: Sequence[Link]) -> Any:
    """A span as protobuf with its links, which MLflow before 3.13 leaves out."""
    for link in links if not message.links else ():
        ids = link.context
        message.links.add(trace_id=ids.trace_id.to_bytes(16, "big"), span_id=ids.span_id.to_bytes(8, "big"))
    return message


def _message(span: Any, parent: int | None, status: tuple[StatusCode, str | None], attributes: list[bytes]) -> bytes:
    ids, times = (span.context.trace_id, span.context.span_id), (span.start_time, span.end_time)
    code, description = status
    return wire.span(ids, parent, span.name, times, (code.value, description or ""), b"".join(attributes))


def _attribute(key: str, text: Any, value: Any) -> bytes:
    """An attribute of a span, given as it is stored and as what that stands for."""
    if type(value) is str and len(value) + len(key) <= _SHORT:
        return _known_attribute(key, value)
    return wire.attribute(key, text if _nests_too_deeply(value, text) else value)


_SHORT = 200
"""Characters of an attribute, with its key, that may be worth remembering."""


@functools.lru_cache(maxsize=4096, typed=True)
def _known_attribute(key: str, value: object) -> bytes:
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


_PLAIN = re.compile(r'"[^"\\\x00-\x1f]*"')
"""A JSON string without escapes."""


def _decoded(text: Any) -> Any:
    """What MLflow reads from a stored attribute: the value of a JSON text, and anything else as it is."""
    if not text:
        return None
    if type(text) is str and _PLAIN.fullmatch(text):
        return text[1:-1]
    try:
        return json.loads(text)
    except Exception:
        return text


_resources: dict[int, tuple[Resource, bytes]] = {}


def _resource(resource: Resource) -> bytes:
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
        plain["attributes"] = {key: json.dumps(_sendable(_decoded(text))) for key, text in plain["attributes"].items()}
        return MlflowSpan.from_dict(_sendable(plain)).to_otel_proto()


def info_to_json(info: TraceInfo, spans: Sequence[LiveSpan]) -> bytes:
    """A trace info as the body of ``POST /api/3.0/mlflow/traces``, with the sizes of its trace in its metadata."""
    if info.assessments or not spans:
        immutable = [span.to_immutable_span() for span in spans]
        add_size_stats_to_trace_metadata(Trace(info, TraceData(immutable)))
        return _info_by_mlflow(info).encode()
    location = info.trace_location.mlflow_experiment
    return _info_to_json(info, location.experiment_id if location else "", [_size_of(span) for span in spans])


def _info_of_plain(root: Plain, experiment_id: str, span_size: int) -> bytes:
    """As `info_to_json`, of a trace that is a root without other spans."""
    found = {
        "trace_id": root.trace_id,
        "client_request_id": root.client_request_id,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}},
        "request_preview": root.request_preview,
        "response_preview": root.response_preview,
        "request_time": _timestamp(root.start_time // 1_000_000),
        "state": "OK" if root.error is None else "ERROR",
        "execution_duration": _duration((root.end_time - root.start_time) // 1_000_000),
        "tags": {**root.common.cut_tags, **_cut(root.tags, MAX_TAG_KEY, MAX_TAG_VALUE)},
        "trace_metadata": _cut(root.trace_metadata, MAX_METADATA, MAX_METADATA),
    }
    text = _dumps({"trace": {"trace_info": {key: value for key, value in found.items() if value is not None}}})
    stats = _size_stats(len(text) - len('{"trace": {"trace_info": }}'), [span_size])
    return f"{text[: -len('}}}}')]}, {stats}}}}}}}}}".encode("utf-8", "replace")  # half a surrogate pair is no UTF-8


_dumps = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode


def _cut(values: Mapping[str, Any], longest_key: int, longest_value: int) -> Mapping[str, Any]:
    """Tags or metadata, cut as MLflow cuts them."""
    try:
        "".join(values.values())  # which takes nothing but text
        if not values or (max(map(len, values.values())) <= longest_value and max(map(len, values)) <= longest_key):
            return values
    except TypeError:  # something else than text
        pass
    return {key[:longest_key]: str(value)[:longest_value] for key, value in values.items()}


def _info_to_json(info: TraceInfo, experiment_id: str, sizes: list[int]) -> bytes:
    fields, metadata = _fields(info, experiment_id), _pairs(info.trace_metadata, MAX_METADATA, MAX_METADATA)
    size = (
        len(fields)
        + len(metadata)
        + len(f'{{, "trace_metadata": {{}}, "execution_duration_ms": {info.execution_duration}}}')
    )
    duration = ""
    if info.execution_duration is not None:
        duration = f', "execution_duration": "{_duration(info.execution_duration)}"'
    stats = _size_stats(size, sizes)
    metadata = f"{metadata}, {stats}" if metadata else stats
    return f'{{"trace": {{"trace_info": {{{fields}{duration}, "trace_metadata": {{{metadata}}}}}}}}}'.encode()


def _info_by_mlflow(info: TraceInfo) -> str:
    try:
        return str(message_to_json(StartTraceV3(trace=Trace(info, TraceData([])).to_proto())))
    except Exception:
        plain = TraceInfo(**{name: _sendable(value) for name, value in vars(info).items()})
        return str(message_to_json(StartTraceV3(trace=Trace(plain, TraceData([])).to_proto())))


def _size_stats(info: int, spans: list[int]) -> str:
    """The sizes of a trace's JSON, as ``mlflow.tracing.utils.add_size_stats_to_trace_metadata`` finds them.

    Args:
        info: Bytes of its info.
        spans: Those of each span.

    Returns:
        Metadata as JSON without its braces.
    """
    sizes = sorted(spans)
    total = sum(sizes) + info + len('{"info": , "data": {"spans": []}}') + (len(sizes) - 1) * 2
    several = len(sizes) > 1
    p25, p50, p75 = [int(_percentile(sizes, share)) if several else sizes[0] for share in (0.25, 0.50, 0.75)]
    stats = f'\\"total_size_bytes\\": {total}, \\"num_spans\\": {len(sizes)}, \\"max\\": {sizes[-1]}'
    stats += f', \\"p25\\": {p25}, \\"p50\\": {p50}, \\"p75\\": {p75}'
    return f'"{TraceMetadataKey.SIZE_STATS}": "{{{stats}}}", "{TraceMetadataKey.SIZE_BYTES}": "{total}"'


def _size_of(span: LiveSpan) -> int:
    """Bytes of a span's JSON."""
    otel = span._span
    if otel.links or otel._events:
        return len(json.dumps(span.to_immutable_span().to_dict(), default=str))
    parent = len(_BASE64_ID) - len("null") if otel.parent is not None else 0
    attributes = attributes_of(otel).copy()
    others = [text for text in attributes.values() if type(text) is not str]  # set with OpenTelemetry's own API
    texts = [text for text in attributes.values() if type(text) is str] if others else attributes.values()
    size = _size(otel, otel.status.status_code, otel.status.description, len(attributes), [*attributes, *texts])
    return parent + size + sum(len(json.dumps(text, default=str)) - 2 for text in others)


def _size_of_plain(root: Plain, span: bytes) -> int:
    """As `_size_of`, given the span in OTLP: exact for bodies, and to some bytes for what else is plain ASCII."""
    texts = "".join(root.texts.values())
    escaped = len(encode_basestring_ascii(texts)) - len(texts.encode("utf-8", "replace"))
    return len(span) + escaped + _MORE + _MORE_OF_EACH * (len(root.common.attributes) + len(root.attributes))


_MORE, _MORE_OF_EACH = 228, 4
"""Bytes that the JSON of a span and of each of its texts takes more than OTLP, about."""

_AROUND = len('"": "", ')
"""What is around a key and its value."""


def _size(span: Any, status: StatusCode, description: str | None, count: int, texts: Iterable[str]) -> int:
    """Bytes of the JSON of a span with so many attributes, given their keys and their JSON."""
    size = _FIXED + len(str(span.start_time)) + len(str(span.end_time)) + len(_STATUS_NAMES[status]) + len("null")
    size += len(encode_basestring_ascii(span.name)) + len(encode_basestring_ascii(description or ""))
    together = encode_basestring_ascii("".join(texts))  # in one go: 4 us instead of 20
    return size + len(together) - 2 + _AROUND * count - len(", ") if count else size


_BASE64_ID = '"AAAAAAAAAAA="'
_LINKS = ', "links": []' if hasattr(entities, "Link") else ""
"""MLflow knows them since 3.13."""

_FIXED = len(
    '{"trace_id": "AAAAAAAAAAAAAAAAAAAAAA==", "span_id": "AAAAAAAAAAA=", "parent_span_id": , "name": , '
    '"start_time_unix_nano": , "end_time_unix_nano": , "events": [], "status": {"code": "", "message": }, '
    '"attributes": {}}' + _LINKS
)
"""What is the same in the JSON of all spans."""


def _percentile(ordered: Sequence[int], share: float) -> float:
    """Between the two values next to that place, as far as the place is between them."""
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _fields(info: TraceInfo, experiment_id: str) -> str:
    """The JSON of ``TraceInfo.to_dict`` without its braces, and without duration and metadata."""
    texts = [f'"trace_id": {_quoted(info.trace_id)}']
    if info.client_request_id is not None:
        texts.append(f'"client_request_id": {_quoted(info.client_request_id)}')
    where = f'{{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {{"experiment_id": {_quoted(experiment_id)}}}}}'
    texts.append(f'"trace_location": {where}')
    if info.request_preview is not None:
        texts.append(f'"request_preview": {_quoted(info.request_preview)}')
    if info.response_preview is not None:
        texts.append(f'"response_preview": {_quoted(info.response_preview)}')
    texts.append(f'"request_time": "{_timestamp(info.request_time)}", "state": "{info.state.value}"')
    if info.tags:
        texts.append(f'"tags": {{{_pairs(info.tags, MAX_TAG_KEY, MAX_TAG_VALUE)}}}')
    return ", ".join(texts)


def _pairs(values: Mapping[str, Any], longest_key: int, longest_value: int) -> str:
    """Tags or metadata as JSON without its braces, cut as MLflow cuts them."""
    return ", ".join(
        [
            _known_pair(key, value)
            if type(value) is str and len(key) + len(value) <= _SHORT
            else _pair(key[:longest_key], str(value)[:longest_value])
            for key, value in values.items()
        ]
    )


def _pair(key: str, value: str) -> str:
    return f"{_quoted(key)}: {_quoted(value)}"


_known_pair = functools.lru_cache(maxsize=4096)(_pair)
"""Most are the same for many requests: 0.2 us for each, instead of 0.8."""


def _quoted(text: str) -> str:
    """Text as JSON; half a surrogate pair becomes a question mark."""
    quoted = encode_basestring_ascii(text)
    return encode_basestring_ascii(text.encode(errors="replace").decode()) if "\\ud" in quoted else quoted


def _timestamp(milliseconds: int) -> str:
    """https://protobuf.dev/programming-guides/json/, ``Timestamp``: RFC 3339, with 0 or 3 digits of a fraction."""
    seconds, fraction = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{fraction:03d}Z" if fraction else f"{_second(seconds)}Z"


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _duration(milliseconds: int) -> str:
    """https://protobuf.dev/programming-guides/json/, ``Duration``."""
    sign = "-" if milliseconds < 0 else ""
    seconds, fraction = divmod(abs(milliseconds), 1000)
    return f"{sign}{seconds}.{fraction:03d}s" if fraction else f"{sign}{seconds}s"


def _sendable(value: Any) -> Any:
    """The same without what protobuf or JSON refuse: half a surrogate pair, an integer of more than 64 bits."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, dict):
        return {_sendable(key): _sendable(inner) for key, inner in value.items()}
    return [_sendable(inner) for inner in value] if isinstance(value, list | tuple) else value
