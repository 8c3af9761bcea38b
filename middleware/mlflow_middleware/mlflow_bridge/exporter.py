"""From a finished trace to our delivery."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import LiveSpan, Trace, TraceData
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracing.utils.truncation import set_request_response_preview
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mlflow_middleware.mlflow_bridge import mlflow_root, otlp, span_attributes, trace_info
from mlflow_middleware.mlflow_bridge.plain_root import PlainRoot
from mlflow_middleware.mlflow_bridge.root_span import Written
from mlflow_middleware.mlflow_bridge.uris import is_databricks


@dataclass(slots=True)
class TraceContent:
    """What of a trace goes over the wire.

    Attributes:
        otlp: Its spans as an OTLP request (protobuf). Such requests joined end to end are one request for all.
        info: Its trace info, as the body of ``POST /api/3.0/mlflow/traces``.
        prompts: Name and version of each prompt linked to it.
        attachments: Files taken out of its inputs and outputs, by the id that refers to them there.
        outlived: Whether one of its spans ended after its root.
    """

    otlp: bytes
    info: bytes
    prompts: Sequence[tuple[str, str]]
    attachments: dict[str, bytes]
    outlived: bool


class FinishedTrace:
    """A trace whose root has ended, as it waits for delivery; it is read only when its turn comes.

    Attributes:
        tracking_uri: Where it goes.
        trace_id: MLflow's trace id.
        experiment_id: None for the one that the environment names, not known yet when the trace began.
        size: Bytes, about: what it counts for in the queue.
        supplement: Whether it was delivered before, and a span has ended since.
        captured_by: What took it in the place of delivery; also for its supplements.
        is_read: Whether its content was read.
    """

    __slots__ = (
        "_finalize",
        "_trace",
        "captured_by",
        "experiment_id",
        "is_read",
        "size",
        "supplement",
        "trace_id",
        "tracking_uri",
    )

    def __init__(
        self,
        tracking_uri: str,
        trace: Any,
        finalize: Callable[[Any], None],
        earlier: FinishedTrace | None = None,
    ) -> None:
        self.tracking_uri = tracking_uri
        self.trace_id: str = trace.info.trace_id
        self.experiment_id: str | None = trace.info.experiment_id
        self.supplement = earlier is not None
        self.captured_by: Callable[[FinishedTrace], None] | None = earlier.captured_by if earlier else None
        self.is_read = False
        self.size = 1000 + sum(_size(span) for span in list(trace.span_dict.values()))
        self._trace = trace
        self._finalize = finalize

    def forget_contents(self) -> None:
        """Do without the inputs and outputs that are still to be read: there is no time or no room for them."""
        mlflow_root.forget_contents(self._trace)

    def is_complete(self) -> bool:
        """Whether all of its spans have ended, and nothing more will come."""
        return not _has_open_spans(self._trace)

    def content(self, experiment_id: str) -> TraceContent:
        """Read it: the spans that have ended by now, and its info, with that experiment."""
        info, spans, read = self._read(experiment_id)
        prompts = [(prompt.name, str(prompt.version)) for prompt in self._trace.prompts]
        attachments = _attachments_of(spans)
        as_text = () if is_databricks(self.tracking_uri) else {each.text for each in read}
        encoded = otlp.spans_to_otlp(spans, as_text)
        root_ends = [span.end_time_ns for span in spans if is_local_root(span._span)]
        outlived = bool(root_ends) and any(span.end_time_ns > max(root_ends) for span in spans)
        return TraceContent(encoded, trace_info.info_to_json(info, spans), prompts, attachments, outlived)

    def entity(self, experiment_id: str) -> Trace:
        """Read it as what MLflow's own search would give."""
        info, spans, _ = self._read(experiment_id)
        return Trace(info, TraceData([span.to_immutable_span() for span in spans]))

    def _read(self, experiment_id: str) -> tuple[TraceInfo, list[LiveSpan], list[Written]]:
        self.is_read = True
        read = [
            each
            for span in list(self._trace.span_dict.values())
            for each in mlflow_root.read_contents(self._trace, span)
        ]
        self._finalize(self._trace)
        info = copy.copy(self._trace.info)
        info.tags, info.trace_metadata = dict(info.tags), dict(info.trace_metadata)  # the app may go on
        info.trace_location = TraceLocation.from_experiment_id(experiment_id)
        spans = [span for span in list(self._trace.span_dict.values()) if span.end_time_ns is not None]
        if info.request_preview is None or info.response_preview is None:
            set_request_response_preview(info, TraceData(spans))
        return info, spans, read


def _attachments_of(spans: Sequence[LiveSpan]) -> dict[str, bytes]:
    return {key: each.content_bytes for span in spans for key, each in span._attachments.items()}


def _size(span: LiveSpan) -> int:
    attached = sum(len(each.content_bytes) for each in span._attachments.values())
    return 500 + attached + mlflow_root.unread_of(span) + span_attributes.size_of_attributes(span._span)


def _has_open_spans(trace: Any) -> bool:
    return any(map(mlflow_root.is_open, list(trace.span_dict.values())))


class FinishedRequest(FinishedTrace):
    """A request's trace of which MLflow's objects were not made, or not before it had ended."""

    __slots__ = ("_root",)

    def __init__(
        self, tracking_uri: str, root: PlainRoot, finalize: Callable[[Any], None], supplement: bool = False
    ) -> None:
        self.tracking_uri = tracking_uri
        self.trace_id = root.trace_id
        self.experiment_id = root.experiment_id
        self.supplement = supplement
        self.captured_by = None
        self.is_read = False
        self.size = root.size + sum(map(_size, root.children))
        self._root = root
        self._finalize = finalize

    def made(self, trace: Any) -> None:
        """MLflow's objects have been made."""
        self._trace = trace

    def forget_contents(self) -> None:
        """See `FinishedTrace`."""
        self._root.forget_contents()

    def is_complete(self) -> bool:
        """See `FinishedTrace`."""
        trace: Any = getattr(self, "_trace", None)
        return not (_has_open_spans(trace) if trace else self._root.is_open)

    def content(self, experiment_id: str) -> TraceContent:
        """See `FinishedTrace`."""
        self.is_read = True
        if not self._root.is_read():
            return super().content(experiment_id)
        encoded, info = self._root.encoded(experiment_id)
        attachments = _attachments_of(self._root.children)
        self._root.encoded_as(self)
        return TraceContent(encoded, info, (), attachments, outlived=False)

    def entity(self, experiment_id: str) -> Trace:
        """See `FinishedTrace`; it is made of MLflow's objects, and so are its supplements."""
        self._root.made()
        return super().entity(experiment_id)


MAX_OUTLIVED = 1000
"""Traces, delivered but for spans that are still open, that are kept so that such a span finds its trace."""


class Exporter(SpanExporter):
    """Hands each trace to delivery when its root has ended, and again when a span has ended long after it.

    A trace stays registered with MLflow as long as one of its spans is open, so that such a span finds it.
    """

    def __init__(
        self,
        tracking_uri: str,
        put: Callable[[FinishedTrace], None],
        queue: object,
        finalize: Callable[[Any], None],
    ) -> None:
        self._tracking_uri = tracking_uri
        self._put = put
        self._async_queue = queue  # mlflow.flush_trace_async_logging() flushes what has this name
        self._finalize = finalize
        self._outlived: dict[int, FinishedTrace] = {}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take ended spans."""
        manager = InMemoryTraceManager.get_instance()
        for span in spans:
            otel_id = span.context.trace_id
            if not is_local_root(span) and otel_id not in self._outlived:
                continue
            with manager._lock:
                trace = manager._traces.get(manager._otel_id_to_mlflow_trace_id.get(otel_id))
                if trace is None:
                    continue
                earlier = self._outlived.pop(otel_id, None)
                if earlier is None or earlier.is_read:
                    finished = FinishedTrace(self._tracking_uri, trace, self._finalize, earlier)
                else:
                    finished = earlier
                if _has_open_spans(trace):
                    self._outlived[otel_id] = finished
                    self._forget_oldest(manager)
                else:
                    del manager._traces[trace.info.trace_id]
                    del manager._otel_id_to_mlflow_trace_id[otel_id]
            if finished is not earlier:
                self._put(finished)
        return SpanExportResult.SUCCESS

    def goes_on(self, otel_id: int, finished: FinishedTrace) -> None:
        """A trace that is in delivery already may get more spans."""
        self._outlived[otel_id] = finished
        self._forget_oldest(InMemoryTraceManager.get_instance())

    def _forget_oldest(self, manager: InMemoryTraceManager) -> None:
        """Of delivered traces whose last span never ends, only so many are remembered."""
        while len(self._outlived) > MAX_OUTLIVED:
            otel_id = next(iter(self._outlived))
            del self._outlived[otel_id]
            manager._traces.pop(manager._otel_id_to_mlflow_trace_id.pop(otel_id, None), None)


def is_local_root(span: ReadableSpan) -> bool:
    """Whether a span is the root of what this process knows of its trace."""
    return span.parent is None or span.parent.is_remote
