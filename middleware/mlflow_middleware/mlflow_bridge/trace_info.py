"""The encoding of trace infos as bodies of ``POST /api/3.0/mlflow/traces``, with the trace's sizes in the metadata."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

from mlflow.entities import LiveSpan, Trace, TraceData
from mlflow.entities import Span as MlflowSpan
from mlflow.entities.trace_info import TraceInfo
from mlflow.protos.service_pb2 import StartTraceV3
from mlflow.tracing.utils import add_size_stats_to_trace_metadata
from mlflow.utils.proto_json_utils import message_to_json
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

from mlflow_middleware.mlflow_bridge.span_attributes import attributes_of, sendable
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.common import cut
from mlflow_middleware.trace.description import Description
from mlflow_middleware.trace.keys import MAX_METADATA, MAX_TAG_KEY, MAX_TAG_VALUE
from mlflow_middleware.trace.record import TraceRecord

_STATUS_NAMES = {
    StatusCode.UNSET: "STATUS_CODE_UNSET",
    StatusCode.OK: "STATUS_CODE_OK",
    StatusCode.ERROR: "STATUS_CODE_ERROR",
}
"""https://github.com/open-telemetry/opentelemetry-proto, opentelemetry/proto/trace/v1/trace.proto, Status.StatusCode"""


def of_trace(info: TraceInfo, spans: Sequence[LiveSpan]) -> bytes:
    """Encode a trace info as the body of ``POST /api/3.0/mlflow/traces``, with the trace's sizes in its metadata."""
    if info.assessments or not spans:
        return by_mlflow(info, [span.to_immutable_span() for span in spans])
    location = info.trace_location.mlflow_experiment
    found = {
        **_where(info.trace_id, info.client_request_id, location.experiment_id if location else ""),
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        "request_time": _timestamp(info.request_time),
        "state": info.state.value,
        "tags": cut(info.tags, MAX_TAG_KEY, MAX_TAG_VALUE) or None,
    }
    sizes = [size_of(span) for span in spans]
    return _written(found, info.execution_duration, info.trace_metadata, sizes)


def of_request(
    record: TraceRecord,
    description: Description,
    metadata: Mapping[str, str],
    experiment_id: str,
    sizes: list[int],
) -> bytes:
    """Encode the trace info of a request.

    Args:
        record: The record of the request.
        description: The content of its trace.
        metadata: The trace's metadata.
        experiment_id: The experiment's id.
        sizes: Size of each span's JSON, in bytes.
    """
    found = {
        **_where(record.trace_id, description.client_request_id, experiment_id),
        "request_preview": description.request_preview,
        "response_preview": description.response_preview,
        "request_time": _timestamp(record.start_time // 1_000_000),
        "state": state_of(description),
        "tags": {**description.common.cut_tags, **cut(description.tags, MAX_TAG_KEY, MAX_TAG_VALUE)},
    }
    return _written(found, ((record.end_time or 0) - record.start_time) // 1_000_000, metadata, sizes)


def state_of(description: Description) -> str:
    """Return the state of a request's trace, as in MLflow."""
    return description.state or ("OK" if description.error is None else "ERROR")


def _where(trace_id: str, client_request_id: str | None, experiment_id: str) -> dict[str, Any]:
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
    return {"trace_id": trace_id, "client_request_id": client_request_id, "trace_location": location}


_dumps = json.JSONEncoder(check_circular=False).encode


def _written(found: dict[str, Any], duration: int | None, metadata: Mapping[str, Any], sizes: list[int]) -> bytes:
    """Encode a trace info.

    Args:
        found: The fields, except those below; fields with None are omitted.
        duration: Milliseconds.
        metadata: The metadata, to which the sizes are added.
        sizes: Size of each span's JSON, in bytes.
    """
    fields = {key: value for key, value in found.items() if value is not None}
    if duration is not None:
        fields["execution_duration"] = written = _duration(duration)
    fields["trace_metadata"] = cut(metadata, MAX_METADATA, MAX_METADATA)
    text = _dumps(fields)
    if "\\u" in text and (("\\ud" in text and _HALF.search(text)) or "\\u0000" in text):
        text = _dumps(sendable(fields))
    # MLflow's own JSON has the milliseconds as a number, under a longer name, or null if there are none
    differs = _NO_DURATION if duration is None else len(f'_ms": {duration}') - len(f'": "{written}"')
    stats = _size_stats(len(text) + differs, sizes)
    stats = f", {stats}" if fields["trace_metadata"] else stats
    return f'{{"trace": {{"trace_info": {text[: -len("}}")]}{stats}}}}}}}}}'.encode()


_HALF = re.compile(r"\\ud[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..)\\ud[c-f]")
"""Half a surrogate pair in JSON, which UTF-8 cannot represent."""

_NO_DURATION = len(', "execution_duration_ms": null')


def by_mlflow(info: TraceInfo, spans: Sequence[MlflowSpan]) -> bytes:
    """Encode a trace info like `of_trace`, but with MLflow's own code, which is the only way for assessments."""
    ids = [each.assessment_id for each in info.assessments]
    for each in info.assessments:
        each.assessment_id = None  # MLflow does not send or count ids
    add_size_stats_to_trace_metadata(Trace(info, TraceData(list(spans))))
    for each, assessment_id in zip(info.assessments, ids, strict=True):
        each.assessment_id = assessment_id
    try:
        text = _json_of(info)
    except Exception:
        text = ""
    if not text or "\\u0000" in text:
        text = _json_of(TraceInfo(**{name: sendable(value) for name, value in vars(info).items()}))
    return text.encode()


def _json_of(info: TraceInfo) -> str:
    return str(message_to_json(StartTraceV3(trace=Trace(info, TraceData([])).to_proto())))


def _size_stats(info: int, spans: list[int]) -> str:
    """Return the sizes of a trace's JSON, like ``mlflow.tracing.utils.add_size_stats_to_trace_metadata``.

    Args:
        info: Size of the info, in bytes.
        spans: Size of each span, in bytes.

    Returns:
        Metadata as JSON without its braces.
    """
    sizes = sorted(spans)
    total = sum(sizes) + info + len('{"info": , "data": {"spans": []}}') + (len(sizes) - 1) * 2
    several = len(sizes) > 1
    p25, p50, p75 = [int(_percentile(sizes, share)) if several else sizes[0] for share in (0.25, 0.50, 0.75)]
    stats = f'\\"total_size_bytes\\": {total}, \\"num_spans\\": {len(sizes)}, \\"max\\": {sizes[-1]}'
    stats += f', \\"p25\\": {p25}, \\"p50\\": {p50}, \\"p75\\": {p75}'
    return f'"{keys.SIZE_STATS}": "{{{stats}}}", "{keys.SIZE_BYTES}": "{total}"'


def size_of(span: LiveSpan) -> int:
    """Return the size of a span's JSON, in bytes."""
    otel = span._span
    if otel.links or otel.events:
        return len(json.dumps(span.to_immutable_span().to_dict(), default=str))
    parent = len(_BASE64_ID) - len("null") if otel.parent is not None else 0
    attributes = attributes_of(otel).copy()
    others = [text for text in attributes.values() if type(text) is not str]  # set with OpenTelemetry's own API
    texts = [text for text in attributes.values() if type(text) is str] if others else attributes.values()
    size = _size(otel, otel.status.status_code, otel.status.description, len(attributes), [*attributes, *texts])
    return parent + size + sum(len(json.dumps(text, default=str)) - 2 for text in others)


def size_of_root(description: Description, span: bytes) -> int:
    """Return the size like `size_of`, given the span in OTLP: exact for bodies, and nearly so for other plain ASCII."""
    texts = "".join([text for text in description.texts.values() if type(text) is str])
    escaped = len(encode_basestring_ascii(texts)) - len(texts.encode("utf-8", "replace"))
    count = len(description.common.attributes) + len(description.attributes) + 2
    return len(span) + escaped + _fixed() + _MORE_OF_EACH * count


_MORE_OF_EACH = 4
"""Approximate number of bytes by which the JSON of each text of a span exceeds its OTLP; `_fixed` covers the span."""

_AROUND = len('"": "", ')
"""The JSON around a key and its value."""


def _size(span: Any, status: StatusCode, description: str | None, count: int, texts: Iterable[str]) -> int:
    """Return the size of a span's JSON in bytes, given its number of attributes, their keys and their JSON."""
    size = _fixed() + len(str(span.start_time)) + len(str(span.end_time)) + len(_STATUS_NAMES[status]) + len("null")
    size += len(encode_basestring_ascii(span.name)) + len(encode_basestring_ascii(description or ""))
    together = encode_basestring_ascii("".join(texts))  # all at once
    return size + len(together) - 2 + _AROUND * count - len(", ") if count else size


_BASE64_ID = '"AAAAAAAAAAA="'


@functools.cache
def _fixed() -> int:
    """Return the constant part of the size of all spans' JSON, whose fields depend on MLflow's version."""
    plain = ReadableSpan("", SpanContext(1, 1, is_remote=False), attributes={}, start_time=0, end_time=0)
    return len(json.dumps(MlflowSpan(plain).to_dict())) - len('""00STATUS_CODE_UNSETnull""')


def _percentile(ordered: Sequence[int], share: float) -> float:
    """Interpolate linearly between the two nearest values."""
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


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
