"""The data that arrived from each tool, in one form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

import msgpack
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.comparison.sink import Asked
from tests.comparison.spans import Span, flat


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: _value(each.value) for each in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def otlp(asked: Iterable[Asked]) -> Iterator[Span]:
    """Return spans from OTLP, without Logfire's announcements of spans that are still running."""
    for each in asked:
        if not each.path.endswith("/traces") or "protobuf" not in each.headers.get("content-type", ""):
            continue
        for resource in ExportTraceServiceRequest.FromString(each.body).resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                values = {one.key: _value(one.value) for one in span.attributes}
                if values.get("logfire.span_type") == "pending_span":
                    continue
                events = [{one.key: _value(one.value) for one in event.attributes} for event in span.events]
                kinds = [str(event["exception.type"]) for event in events if "exception.type" in event]
                error = " ".join([span.status.message, *kinds]) if span.status.code == 2 else None
                yield Span(
                    *(span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex() or None, span.name),
                    span.start_time_unix_nano / 1e9,
                    error,
                    dict(flat({**values, "events": events})),
                    tuple(link.trace_id.hex() for link in span.links),
                )


def mlflow(traces: Iterable[Any]) -> Iterator[Span]:
    """Return the spans of MLflow's traces, as its client reads them; the root also has the trace's values."""
    for trace in traces:
        info = trace.info.to_dict()
        for span in trace.data.spans:
            values = {**span.attributes, "events": [dict(event.attributes) for event in span.events]}
            if span.parent_id is None:
                values["info"] = info
            kinds = [str(event.attributes.get("exception.type", "")) for event in span.events]
            is_error = span.status.status_code.value == "ERROR"
            yield Span(
                *(trace.info.trace_id.removeprefix("tr-"), span.span_id, span.parent_id, span.name),
                span.start_time_ns / 1e9,
                " ".join([span.status.description or "", *kinds]) if is_error else None,
                dict(flat(values)),
                tuple(link.trace_id.removeprefix("tr-") for link in getattr(span, "links", None) or ()),
            )


def langsmith(asked: Iterable[Asked]) -> Iterator[Span]:
    """Return LangSmith's runs: the announcement first, then the final state."""
    runs: dict[str, dict[str, Any]] = {}
    for each in asked:
        if not each.path.endswith("/runs/batch"):
            continue
        batch = json.loads(each.body)
        for run in [*batch.get("post", ()), *batch.get("patch", ())]:
            runs.setdefault(run["id"], {}).update({key: value for key, value in run.items() if value is not None})
    for run in runs.values():
        began = datetime.fromisoformat(run["start_time"].replace("Z", "+00:00"))
        began = began if began.tzinfo else began.replace(tzinfo=timezone.utc)
        values = dict(flat({key: run.get(key) for key in ("inputs", "outputs", "extra", "tags")}))
        yield Span(
            *(run.get("trace_id", run["id"]), run["id"], run.get("parent_run_id"), run["name"]),
            began.timestamp(),
            run.get("error"),
            values,
        )


def datadog(asked: Iterable[Asked]) -> Iterator[Span]:
    """Return Datadog's spans, without those whose trace the agent drops."""
    for each in asked:
        if each.path.endswith("/v0.4/traces"):
            for chunk in msgpack.unpackb(each.body, strict_map_key=False):
                if all(span.get("metrics", {}).get("_sampling_priority_v1", 1) > 0 for span in chunk):
                    yield from map(_of_datadog, chunk)


def _of_datadog(span: dict[str, Any]) -> Span:
    """Return a span for the agent; LLM Observability's data is packed into it."""
    meta = span.get("meta", {})
    observed = msgpack.unpackb(span.get("meta_struct", {}).get("_llmobs", b"\x80"))
    known = {"meta": observed.pop("meta", {}), "observed": observed}
    return Span(
        *(f"{span['trace_id']:016x}", f"{span['span_id']:016x}"),
        f"{span['parent_id']:016x}" if span.get("parent_id") else None,
        span["resource"],
        span["start"] / 1e9,
        f"{meta.get('error.type', '')} {meta.get('error.message', '')}" if span.get("error") else None,
        dict(flat({**meta, **span.get("metrics", {}), **known})),
        tuple(f"{link['trace_id']:016x}" for link in span.get("span_links", ())),
    )


READERS: dict[str, Callable[[Iterable[Asked]], Iterator[Span]]] = {
    "langfuse": otlp,
    "logfire": otlp,
    "langsmith": langsmith,
    "datadog": datadog,
}
