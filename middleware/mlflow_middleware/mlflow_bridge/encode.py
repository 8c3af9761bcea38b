"""The encoding of traces: the record of a request, and the spans that the app has opened."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from mlflow.entities import Assessment, LiveSpan, Trace, TraceData
from mlflow.entities import Span as MlflowSpan
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.utils.truncation import set_request_response_preview
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status, StatusCode

from mlflow_middleware.capture.spans import is_wordless, redacted, redacted_text
from mlflow_middleware.mlflow_bridge import otlp, prices, readable, trace_info, usage
from mlflow_middleware.mlflow_bridge.attachments import attachment
from mlflow_middleware.mlflow_bridge.materialize import (
    FAILED_ROOT_ATTRIBUTES,
    ROOT_ATTRIBUTES,
    attributes_of_root,
    kind_of,
    link_to,
    parent_of,
    root_of,
)
from mlflow_middleware.mlflow_bridge.root import Root
from mlflow_middleware.mlflow_bridge.span_attributes import attributes_of, is_local_root, to_texts
from mlflow_middleware.mlflow_bridge.words import words_here, words_of
from mlflow_middleware.trace import keys, wire
from mlflow_middleware.trace.contents import contents_of
from mlflow_middleware.trace.description import Description, describe
from mlflow_middleware.trace.record import JOINED, NOTHING, SPANS_ONLY

_ROOT_OTLP = b"".join([wire.attribute(key, value) for key, value in ROOT_ATTRIBUTES.items()])
_FAILED_ROOT_OTLP = b"".join([wire.attribute(key, value) for key, value in FAILED_ROOT_ATTRIBUTES.items()])


NO_KEYS: AbstractSet[str] = frozenset()

Unsent = Callable[[list[Assessment]], list[Assessment]]


class Encoding(NamedTuple):
    """An encoded trace.

    Attributes:
        otlp: The spans as an OTLP request (protobuf). Concatenated requests form one request.
        info: The trace info, as the body of ``POST /api/3.0/mlflow/traces``.
        prompts: Name and version of each linked prompt.
        attachments: Files extracted from the inputs and outputs, by the id that refers to them there.
        has_late_spans: Whether a span ended after the root.
        assessed: Number of the trace's assessments, including those that were sent before.
    """

    otlp: bytes
    info: bytes
    prompts: Sequence[tuple[str, str]]
    attachments: dict[str, bytes]
    has_late_spans: bool
    assessed: int = 0


# --- a request's trace ---


def describe_root(root: Root, *, with_contents: bool = True) -> Description:
    """Describe a request from its record, merged with the values that the app has set with MLflow's functions."""
    record, objects = root.record, root.objects
    description = describe(record, objects.metadata() if objects else NOTHING)
    description.attributes[keys.REQUEST_ID] = record.trace_id
    if with_contents:
        _add_contents(root, description)
    if objects:
        with words_here(root):
            objects.merge_into(description, record)
        usage.agree(description)
    if (longest := root.source.max_length) is not None:
        _cut(description, longest)
    return description


def _add_contents(root: Root, description: Description) -> None:
    attach = attachment if root.source.processor else None  # MLflow's own exporter only handles those of its own spans
    contents, texts = contents_of(root.record, attach), description.texts
    description.attributes.update(contents.attributes)
    if contents.inputs:
        texts[keys.INPUTS] = contents.inputs.text
        description.request_preview = readable.preview(contents.inputs.preview)
    if contents.outputs:
        texts[keys.OUTPUTS] = contents.outputs.text
        description.response_preview = readable.preview(contents.outputs.preview)
    if (
        (contents.call or contents.usage)
        and usage.add_call(description, contents, root.spans)
        and root.source.processor
        and root.source.processor.is_for_databricks
    ):
        prices.add_cost(description)


def _cut(description: Description, longest: int) -> None:
    """Truncate the root's attributes like OpenTelemetry's SDK truncates those of other spans: as JSON texts."""
    for values in (description.attributes, description.texts):
        values.update({key: value[:longest] for key, value in values.items() if type(value) is str})


def encode_request(root: Root, spans: Sequence[LiveSpan], experiment_id: str, unsent: Unsent = list) -> Encoding:
    """Encode a request's trace.

    Args:
        root: The request's root.
        spans: The other spans, which have ended.
        experiment_id: Where it goes.
        unsent: Those of the trace's assessments that are to be sent.
    """
    if not (spans or root.objects):
        return _encoded_request(root, spans, experiment_id, unsent)
    with words_of(spans, root):
        return _encoded_request(root, spans, experiment_id, unsent)


def _encoded_request(root: Root, spans: Sequence[LiveSpan], experiment_id: str, unsent: Unsent) -> Encoding:
    record, objects = root.record, root.objects
    description = describe_root(root)
    span = _root_bytes(root, description)
    others = [_span_bytes(each, otlp.SENT_AS_TEXT) for each in spans]
    all_spans = wire.request(otlp.resource_message(root.source.tracer.resource), [span, *others])
    metadata = _metadata_of(root, description, spans)
    if record.parent_id is not None and _have_parents(root.spans):
        metadata[JOINED] = "true"
    assessments = objects.trace.info.assessments if objects else ()
    if new := unsent(list(assessments)) if assessments else None:
        entity = request_entity(root, spans, experiment_id)
        entity.info.assessments, entity.info.trace_metadata = new, metadata
        info = trace_info.by_mlflow(entity.info, entity.data.spans)
    else:
        sizes = [trace_info.size_of_root(description, span), *map(trace_info.size_of, spans)]
        info = trace_info.of_request(record, description, metadata, experiment_id, sizes)
    prompts = [(prompt.name, str(prompt.version)) for prompt in objects.trace.prompts] if objects else ()
    attached = [*spans, objects.live] if objects else spans
    ended = record.end_time or 0
    late = any((span.end_time_ns or 0) > ended for span in spans)
    attachments = _attachments_of(attached)
    if record.contents and record.contents.files:
        attachments.update(record.contents.files)
    return Encoding(all_spans, info, prompts, attachments, late, len(assessments))


def request_entity(root: Root, spans: Sequence[LiveSpan], experiment_id: str) -> Trace:
    """Return a request's trace as MLflow's own search would return it."""
    with words_of(spans, root):
        return _request_entity(root, spans, experiment_id)


def _request_entity(root: Root, spans: Sequence[LiveSpan], experiment_id: str) -> Trace:
    record, objects = root.record, root.objects
    description = describe_root(root)
    info = TraceInfo(
        trace_id=record.trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=record.start_time // 1_000_000,
        execution_duration=((record.end_time or 0) - record.start_time) // 1_000_000,
        state=TraceState(trace_info.state_of(description)),
        trace_metadata=_metadata_of(root, description, spans),
        tags=description.all_tags(),
        client_request_id=description.client_request_id,
        request_preview=description.request_preview,
        response_preview=description.response_preview,
        assessments=list(objects.trace.info.assessments) if objects else [],
    )
    return Trace(info, TraceData([_root_entity(root, description), *map(_entity_of, spans)]))


def _entity_of(span: LiveSpan) -> MlflowSpan:
    other = root_of(span)
    found: MlflowSpan = _root_entity(other, describe_root(other)) if other else otlp.redacted_entity(span)
    return found


def _root_entity(root: Root, description: Description) -> MlflowSpan:
    record = root.record
    attributes = {**attributes_of_root(description), **description.all_attributes()}
    code = StatusCode.OK if description.error is None else StatusCode.ERROR
    readable = ReadableSpan(
        description.name,
        root.context,
        parent_of(record),
        root.source.tracer.resource,
        attributes={**to_texts(attributes), **description.texts},
        events=_events(root, description),
        kind=kind_of(record),
        links=_links(root),
        status=Status(code, description.error or None),
        start_time=record.start_time,
        end_time=record.end_time,
    )
    return MlflowSpan(readable)


def _root_bytes(root: Root, description: Description) -> bytes:
    record, common, texts = root.record, description.common, description.texts
    own: Mapping[str, Any] = description.attributes
    if root.objects:  # attributes from the app take precedence
        every = {**attributes_of_root(description), **description.all_attributes()}
        left_out = texts.keys() | root.objects.dropped
        own = {key: value for key, value in every.items() if key not in left_out}
        parts = []
    else:
        parts = [_FAILED_ROOT_OTLP if description.exceptions else _ROOT_OTLP, common.otlp]
        if description.call:
            parts.append(description.call.otlp)
    parts += [otlp.attribute(key, value) for key, value in own.items()]
    parts += [wire.attribute(key, readable.as_sent(text)) for key, text in texts.items()]
    parts += [otlp.event_bytes(event) for event in _events(root, description)]
    parts += [otlp.link_bytes(link) for link in _links(root)]
    code = StatusCode.OK if description.error is None else StatusCode.ERROR
    return wire.span(
        record.ids,
        record.parent_id,
        description.name,
        (record.start_time, record.end_time or record.start_time),
        (code.value, description.error or ""),
        b"".join(parts),
        common.kind,
    )


def _span_bytes(span: LiveSpan, as_text: Container[str] = ()) -> bytes:
    """Encode a span, which may be the root of a request that has joined the trace; see `otlp.span_bytes`."""
    request = root_of(span)
    return _root_bytes(request, describe_root(request)) if request else otlp.span_bytes(span, as_text)


def _events(root: Root, description: Description) -> list[Event]:
    recorded = [Event("exception", each.attributes, each.time) for each in description.exceptions]
    return [*root.objects.events, *recorded] if root.objects else recorded


def _links(root: Root) -> Sequence[Any]:
    if root.objects:
        return root.objects.otel.links
    return [link_to(root.record.caller)] if root.record.caller else ()


def _metadata_of(root: Root, description: Description, spans: Sequence[LiveSpan]) -> dict[str, str]:
    given = root.source.processor.metadata if root.source.processor else NOTHING
    texts, objects = description.texts, root.objects
    all_spans = [*spans, objects.live] if objects else spans
    known = usage.keys_of(all_spans) if all_spans else NO_KEYS
    if description.call or not known.isdisjoint(usage.MODELS):
        usage.add_models(description, spans)
    return {**given, **description.metadata, **usage.summary(texts, all_spans, known, texts.get(keys.USAGE))}


# --- a trace that the app has opened itself ---


def encode_trace(trace: Any, spans: Sequence[LiveSpan], experiment_id: str, unsent: Unsent = list) -> Encoding:
    """Encode a trace that the app has opened itself.

    Args:
        trace: The trace in flight.
        spans: Its spans that have ended.
        experiment_id: Where it goes.
        unsent: Those of the trace's assessments that are to be sent.
    """
    with words_of(spans):
        return _encoded_trace(trace, spans, experiment_id, unsent)


def _encoded_trace(trace: Any, spans: Sequence[LiveSpan], experiment_id: str, unsent: Unsent) -> Encoding:
    info = _info_of(trace, spans, experiment_id)
    assessed = len(info.assessments)
    info.assessments = unsent(list(info.assessments)) if assessed else []
    if _have_parents(trace.span_dict.values()):
        info.trace_metadata[JOINED] = SPANS_ONLY if trace.is_remote_trace else "true"
    prompts = [(prompt.name, str(prompt.version)) for prompt in trace.prompts]
    root_ends = [span.end_time_ns for span in spans if _is_own_root(span)]
    late = bool(root_ends) and any(span.end_time_ns > max(root_ends) for span in spans)
    written = trace_info.of_trace(info, spans)
    all_spans = otlp.spans_to_otlp(spans, _span_bytes)
    return Encoding(all_spans, written, prompts, _attachments_of(spans), late, assessed)


def trace_entity(trace: Any, spans: Sequence[LiveSpan], experiment_id: str) -> Trace:
    """Return a trace of the app as MLflow's own search would return it."""
    with words_of(spans):
        info = _info_of(trace, spans, experiment_id)
        return Trace(info, TraceData([_entity_of(span) for span in spans]))


def _info_of(trace: Any, spans: Sequence[LiveSpan], experiment_id: str) -> TraceInfo:
    """Return the trace's info, completed like MLflow does when the root ends; the app may keep changing its own."""
    info = TraceInfo(**{**vars(trace.info), "trace_location": TraceLocation.from_experiment_id(experiment_id)})
    info.tags, info.trace_metadata = dict(info.tags), dict(info.trace_metadata)
    for root in filter(_is_own_root, spans):
        otel = root._span
        info.request_time = (otel.start_time or 0) // 1_000_000
        info.execution_duration = ((otel.end_time or 0) - (otel.start_time or 0)) // 1_000_000
        if info.state == TraceState.IN_PROGRESS:  # otherwise the app has set it
            is_error = otel.status.status_code is StatusCode.ERROR
            info.state = TraceState.ERROR if is_error else TraceState.OK
        info.trace_metadata.update(usage.summary(redacted(attributes_of(otel)), spans, usage.keys_of(spans)))
    if info.request_time is None:  # the trace is a caller's
        info.request_time = min((span.start_time_ns for span in spans), default=0) // 1_000_000
    if info.request_preview is None or info.response_preview is None:
        set_request_response_preview(info, TraceData(list(spans)))
    for request in filter(None, map(root_of, spans)):
        _add_request(info, describe_root(request))
    info.request_preview = readable.preview(redacted_text(info.request_preview))
    info.response_preview = readable.preview(redacted_text(info.response_preview))
    return info


def _add_request(info: TraceInfo, description: Description) -> None:
    """Add the values of a request that is part of the trace."""
    info.tags = {**description.all_tags(), **info.tags}
    info.trace_metadata = {**description.metadata, **info.trace_metadata}
    info.client_request_id = info.client_request_id or description.client_request_id
    info.request_preview = info.request_preview or description.request_preview
    info.response_preview = info.response_preview or description.response_preview


def _have_parents(spans: Iterable[LiveSpan]) -> bool:
    """Return whether every span of a trace has a parent, which means that the trace is a caller's."""
    return all(span._span.parent is not None for span in list(spans))


def _is_own_root(span: LiveSpan) -> bool:
    """Return whether a span is the local root of its trace, and not a request's root."""
    return is_local_root(span._span) and not root_of(span)


# --- both ---


def _attachments_of(spans: Sequence[LiveSpan]) -> dict[str, bytes]:
    """Return the files extracted from spans; a span may be the root of a request that has joined the trace."""
    if not spans or is_wordless():
        return {}
    found = {key: each.content_bytes for span in spans for key, each in span._attachments.items()}
    for request in filter(None, map(root_of, spans)):
        found.update(request.record.contents.files if request.record.contents else {})
    return found
