"""A trace whose root is plain data, as it goes over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import LiveSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanContext, StatusCode

from mlflow_middleware.mlflow_bridge import wire
from mlflow_middleware.mlflow_bridge.common import Common
from mlflow_middleware.mlflow_bridge.otlp import known_attribute, resource_message, root_message, sent, span_bytes
from mlflow_middleware.mlflow_bridge.trace_info import info_of_plain, size_of, size_of_plain


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


def encoded(
    root: Plain, resource: Resource, experiment_id: str, children: Sequence[LiveSpan] = ()
) -> tuple[bytes, bytes]:
    """As `spans_to_otlp` and `info_to_json`, of a trace whose root is data."""
    attributes = [root.common.otlp]
    attributes += [
        known_attribute(key, value) if type(value) is int else wire.attribute(key, value)
        for key, value in root.attributes.items()
    ]
    attributes += [wire.attribute(key, sent(text)) for key, text in root.texts.items()]
    code = StatusCode.OK if root.error is None else StatusCode.ERROR
    span = root_message(root, (code, root.error), attributes)
    otlp = wire.request(resource_message(resource), [span, *[span_bytes(child, ()) for child in children]])
    sizes = [size_of_plain(root, span), *map(size_of, children)]
    return otlp, info_of_plain(root, experiment_id, sizes)
