"""The spans of a trace with the part of its info that makes it searchable, if there is no time for the info itself.

A tracking server reads tags, session and user from a root span, too (mlflow/store/tracking/sqlalchemy_store.py,
``log_spans``; tags since 3.13). The info, if it is sent later, completes the trace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

TAG = "mlflow.traceTag."
"""The prefix of root span attributes that are tags of the trace."""

_IDENTITY = {"session.id": "mlflow.trace.session", "user.id": "mlflow.trace.user"}
"""Attribute of a root span -> metadata of the trace that a server derives from it."""


def with_tags(otlp: bytes, info: bytes) -> bytes:
    """Return an OTLP request whose root span has the tags of its trace.

    Args:
        otlp: The spans of one trace, as an OTLP request.
        info: Its info, as the body of ``POST /api/3.0/mlflow/traces``.
    """
    from mlflow_middleware.mlflow_bridge.otlp import ExportTraceServiceRequest  # available only with a supported MLflow

    request = ExportTraceServiceRequest.FromString(otlp)
    add_tags(spans_of(request), info)
    return bytes(request.SerializeToString())


def spans_of(request: Any) -> list[Any]:
    """Return the spans of a parsed OTLP request."""
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


def add_tags(spans: Sequence[Any], info: bytes, *, is_whole: bool = True) -> None:
    """Add the tags of a trace to its root span.

    Args:
        spans: The spans of the trace.
        info: Its info, as the body of ``POST /api/3.0/mlflow/traces``.
        is_whole: Whether the root is among them; otherwise a span whose parent is elsewhere counts as a root.
    """
    trace_info = json.loads(info).get("trace", {}).get("trace_info", {})
    attributes = {f"{TAG}{key}": value for key, value in trace_info.get("tags", {}).items()}
    metadata = trace_info.get("trace_metadata", {})
    attributes |= {name: metadata[key] for name, key in _IDENTITY.items() if key in metadata}
    ids = set() if is_whole else {span.span_id for span in spans}
    for root in spans:
        if not root.parent_span_id or (ids and root.parent_span_id not in ids):
            known = {attribute.key for attribute in root.attributes}
            for key in attributes.keys() - known:
                root.attributes.add(key=key).value.string_value = attributes[key]
