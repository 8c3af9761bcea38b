"""Spans that can be found without their trace's info."""

from __future__ import annotations

import json

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlflow_middleware.delivery.tagged import with_tags


def test_the_root_span_holds_the_tags_of_its_trace() -> None:
    """And session and user; its own values stay, and other spans are unchanged."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(name="child", span_id=b"c" * 8, parent_span_id=b"r" * 8)
    root = spans.add(name="root", span_id=b"r" * 8)
    root.attributes.add(key="session.id").value.string_value = "the span's own"
    metadata = {"mlflow.trace.session": "s-1", "mlflow.trace.user": "jane"}
    info = {"trace": {"trace_info": {"tags": {"client_request_id": "r-1"}, "trace_metadata": metadata}}}

    tagged = ExportTraceServiceRequest.FromString(with_tags(request.SerializeToString(), json.dumps(info).encode()))

    child, root = tagged.resource_spans[0].scope_spans[0].spans
    assert not child.attributes
    assert {each.key: each.value.string_value for each in root.attributes} == {
        "session.id": "the span's own",
        "user.id": "jane",
        "mlflow.traceTag.client_request_id": "r-1",
    }


def test_without_spans_or_tags_nothing_changes() -> None:
    """As if a trace's spans are all still open."""
    assert with_tags(b"", b"{}") == b""
