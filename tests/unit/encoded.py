"""The encoded traces of this process.

The only place of the unit tests that knows how the product encodes a finished trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlflow_middleware import delivery
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.mlflow_bridge.pending import PendingTrace


@dataclass(frozen=True)
class Sent:
    """An encoded trace.

    Attributes:
        otlp: Its spans, as the body of ``POST /v1/traces``.
        info: Its trace info, as the body of ``POST /api/3.0/mlflow/traces``.
    """

    otlp: bytes
    info: bytes

    @property
    def spans(self) -> list[Span]:
        """Return its spans, as their receiver reads them."""
        request = ExportTraceServiceRequest.FromString(self.otlp)
        return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]

    @property
    def root(self) -> Span:
        """Return the span without a parent."""
        (root,) = (span for span in self.spans if not span.parent_span_id)
        return root

    @property
    def trace_info(self) -> dict[str, Any]:
        """Return its trace info."""
        found: dict[str, Any] = json.loads(self.info)["trace"]["trace_info"]
        return found


@contextmanager
def sent_traces(*, at_once: bool = False) -> Iterator[list[Sent]]:
    """Encode each trace that ends inside; the result is there when the block has ended.

    Args:
        at_once: Encode each as soon as the request is answered, like a flush; then a trace comes once more for later
            work of the app. Otherwise they are encoded when all work is over.
    """
    finished: list[PendingTrace] = []
    sent: list[Sent] = []

    def encode(trace: PendingTrace) -> None:
        encoded = EncodedTrace.encode(trace)
        sent.append(Sent(encoded.otlp, encoded.info))

    with delivery.capturing(encode if at_once else finished.append):
        yield sent
    for trace in finished:
        encode(trace)


def attributes_of(span: Span) -> dict[str, Any]:
    """Return a span's attributes as a server reads them, by their keys, each of which occurs once."""
    found = {each.key: _read(each.value) for each in span.attributes}
    assert len(found) == len(span.attributes)
    return found


def _read(value: AnyValue) -> Any:
    """Return an attribute as a tracking server reads it: text that is an object or array in JSON is parsed."""
    kind = value.WhichOneof("value")
    if kind == "string_value" and value.string_value[:1] in ("{", "["):
        with suppress(ValueError):
            return json.loads(value.string_value)
    return _plain(value)


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return {each.key: _plain(each.value) for each in value.kvlist_value.values}
    if kind == "array_value":
        return [_plain(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
