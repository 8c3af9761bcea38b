"""A request's root span in MLflow: current ids, which are materialized only on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.entities import LiveSpan
from mlflow.tracing.config import get_config
from mlflow.tracing.fluent import _set_last_active_trace_id
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanContext, TraceFlags

from mlflow_middleware.mlflow_bridge import context, encode, registry
from mlflow_middleware.mlflow_bridge.children import TraceOfRequest
from mlflow_middleware.mlflow_bridge.current_span import CurrentSpan
from mlflow_middleware.mlflow_bridge.ids import materializing
from mlflow_middleware.mlflow_bridge.interface import Entered
from mlflow_middleware.mlflow_bridge.materialize import Objects, materialized
from mlflow_middleware.trace.description import describe, metadata_of
from mlflow_middleware.trace.record import NOTHING, TraceRecord

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.processor import Processor

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Source(NamedTuple):
    """The origin of the root spans of requests.

    Attributes:
        provider: The tracer provider.
        tracer: Our tracer of that provider.
        processor: Our span processor, if it is installed.
        is_lazy: Whether MLflow's objects for a root may be created on demand: no other processor observes it, and its
            attributes are not limited.
        lock: MLflow's lock, which is held during a fork.
        ids: Generates new ids.
        max_length: Maximum length of an attribute in characters, if the app's environment limits it.
    """

    provider: object
    tracer: Any
    processor: Processor | None
    is_lazy: bool
    lock: threading.RLock
    ids: IdGenerator
    max_length: int | None = None


class Root:
    """A `RootSpan` that is materialized as MLflow's and OpenTelemetry's objects only on demand: for MLflow's own
    functions, and for the app's span processors.

    Attributes:
        source: Its origin.
        record: The record of the request.
        objects: MLflow's objects, once it is materialized.
        is_held: Whether more may be added after its end.
        is_forgotten: Whether its trace is no longer registered.
    """

    __slots__ = ("_children", "_is_discarded", "is_forgotten", "is_held", "objects", "record", "source")

    def __init__(self, source: Source, record: TraceRecord, objects: Objects | None = None) -> None:
        self.source = source
        self.record = record
        self.objects = objects
        self.is_held = self.is_forgotten = False
        self._children: TraceOfRequest | None = None
        self._is_discarded = False

    @property
    def context(self) -> SpanContext:
        """The ids in OpenTelemetry's form."""
        return SpanContext(*self.record.ids, False, _SAMPLED)

    def attach(self) -> Entered:
        return context.attach(self.objects.otel if self.objects else CurrentSpan(self))

    def annotate(
        self, tags: Mapping[str, str], metadata: Mapping[str, str], client_request_id: str | None = None
    ) -> None:
        if self.objects:
            self.objects.annotate(tags, metadata, client_request_id)

    def metadata(self, key: str) -> str | None:
        known = self.objects.metadata() if self.objects else NOTHING
        return metadata_of(self.record, known).get(key)

    @property
    def failed(self) -> bool:
        failed = self.record.failed
        return self.objects.has_failed(failed) if self.objects else failed

    @property
    def has_spans_inside(self) -> bool:
        return bool(self.spans)

    @property
    def is_shared(self) -> bool:
        """Whether another request or span of this process has begun its trace."""
        return self.objects is not None and self.objects.is_shared

    @property
    def is_leading(self) -> bool:
        """Whether the trace is the request's, although its span has a parent in the app's own OpenTelemetry."""
        return self.objects is not None and self.objects.is_leading

    @property
    def is_recording(self) -> bool:
        """Whether its span is open."""
        return self.record.end_time is None

    def discard(self) -> bool:
        if self.is_shared:
            return False
        with self.source.lock:
            self.forget()
            self._is_discarded = True
        return True

    def end(self, end_time: int | None = None) -> None:
        if self.record.end_time is not None:  # the app, or MLflow's timeout, has ended its span
            self.release()
            return
        ended_at = end_time or time.time_ns()
        processors = get_config().span_processors
        with self.source.lock:
            if processors:  # created before the end, so that they can change it
                self.materialize()
            self.record.end_time, objects = ended_at, self.objects
        if objects:
            is_shown = bool(processors) or not (self.source.is_lazy and self.source.processor)
            reads = bool(processors) or self.source.processor is None  # otherwise the sender reads the bodies
            description = encode.describe_root(self, with_contents=reads) if is_shown else None
            if description and self.source.processor is None:
                objects.replace(description)
                objects.go_to(self.record.experiment_id)
            with materializing(self):
                objects.end(ended_at, description, processors)
        self.export()

    def export(self) -> None:
        """Pass its trace to delivery, if that is ours."""
        if self.source.processor and not self._is_discarded:
            _set_last_active_trace_id(self.record.trace_id)
            self.source.processor.span_exporter.root_ended(self)

    def ended_elsewhere(self, end_time: int) -> None:
        """Record that other code has ended its span; the request may continue."""
        if self.record.end_time is None:
            self.record.end_time = end_time
            self.is_held = True
            if get_config().span_processors:  # they have run already, without the bodies
                self.record.forget_contents()
            self.export()

    def hold(self) -> bool:
        self.is_held = self.source.processor is not None
        return self.is_held

    def release(self) -> None:
        if self.is_held and self.source.processor:
            self.is_held = False
            self.source.processor.span_exporter.released(self)

    def guest_left(self) -> None:
        """Record that one of the requests that add spans to it has left."""
        with self.source.lock:
            registry.guest_left(self.record.ids.trace_id)
        if self.source.processor and not self.is_held:
            self.source.processor.span_exporter.released(self)

    def forget(self) -> None:
        """Unregister its trace, since nothing more will come. Call this under MLflow's lock."""
        self.is_forgotten = True
        registry.in_flight.pop(self.record.ids.trace_id, None)
        if self.objects or self._children:
            registry.unregister(self.record.trace_id, self.record.ids.trace_id)

    # --- its children ---

    def take_child(self) -> None:
        """Register the trace with MLflow, so that a child span finds it; call this under the lock."""
        if self.objects is None and self._children is None:
            self._children = TraceOfRequest(self)
            registry.register(self.record.trace_id, self.record.ids.trace_id, self._children)

    @property
    def spans(self) -> list[LiveSpan]:
        """The other spans of its trace."""
        if self.objects:
            return [span for span in list(self.objects.trace.span_dict.values()) if span is not self.objects.live]
        return self._children.spans if self._children else []

    # --- as MLflow's objects ---

    def materialize(self) -> Objects:
        """Return MLflow's objects, created on the first call."""
        with self.source.lock:
            if self.objects is None:
                self.objects = materialized(self, describe(self.record))
                if self._is_discarded:
                    self.forget()
            return self.objects
