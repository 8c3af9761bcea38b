"""The only package that touches what MLflow and the OpenTelemetry SDK keep private.

It does three things: open the root span of a request (`roots`), hand every finished trace of the process to our
delivery, and keep MLflow's look-up of the experiment (which fails in the slim package, and asks the server on the
request path in the full one) away from requests.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
import logging
import os
import ssl
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import mlflow
from google.protobuf.json_format import ParseDict
from mlflow.entities import LiveSpan, SpanType, Trace, TraceData
from mlflow.entities import Span as MlflowSpan
from mlflow.entities.run import Run
from mlflow.entities.span import _SpanAttributesRegistry, create_mlflow_span
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.environment_variables import MLFLOW_TRACE_TIMEOUT_SECONDS, MLFLOW_USE_DEFAULT_TRACER_PROVIDER
from mlflow.protos.databricks_artifacts_pb2 import GetCredentialsForTraceDataUpload
from mlflow.protos.service_pb2 import SearchTracesV3, StartTraceV3
from mlflow.store.artifact.databricks_artifact_repo import DatabricksArtifactRepository
from mlflow.tracing import provider, trace_manager
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import (
    TRACE_SCHEMA_VERSION,
    TRACE_SCHEMA_VERSION_KEY,
    SpanAttributeKey,
    TraceMetadataKey,
    TraceTagKey,
)
from mlflow.tracing.context import _USER_TRACE_CONTEXT, get_configured_trace_metadata, get_configured_trace_tags
from mlflow.tracing.fluent import _set_last_active_trace_id
from mlflow.tracing.processor.base_mlflow import BaseMlflowSpanProcessor
from mlflow.tracing.trace_manager import InMemoryTraceManager, _Trace
from mlflow.tracing.utils import (
    generate_mlflow_trace_id_from_otel_trace_id,
    get_otel_attribute,
    update_trace_state_from_span_conditionally,
)
from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace
from mlflow.tracing.utils.truncation import set_request_response_preview
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service import utils as tracking_service
from mlflow.utils.request_utils import _get_http_response_with_retries
from mlflow.utils.rest_utils import MlflowHostCreds, get_workspace_client, http_request
from mlflow.utils.uri import is_databricks_uri
from opentelemetry.context import Context
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
)
from opentelemetry.trace import (
    set_span_in_context as otel_set_span_in_context,
)
from requests import Response
from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, select_proxy

from mlflow_middleware.mlflow_seam import current, encoding, roots
from mlflow_middleware.mlflow_seam.current import Entered as Entered
from mlflow_middleware.mlflow_seam.current import Undo as Undo
from mlflow_middleware.mlflow_seam.current import current_span as current_span
from mlflow_middleware.mlflow_seam.current import leave as leave
from mlflow_middleware.mlflow_seam.current import resume as resume
from mlflow_middleware.mlflow_seam.current import silence as silence
from mlflow_middleware.mlflow_seam.encoding import Common as Common
from mlflow_middleware.mlflow_seam.roots import MAX_IN_FLIGHT, MlflowRoot, PlainRoot, Source
from mlflow_middleware.mlflow_seam.roots import Contents as Contents
from mlflow_middleware.mlflow_seam.roots import Describe as Describe
from mlflow_middleware.mlflow_seam.roots import Description as Description
from mlflow_middleware.mlflow_seam.roots import RootSpan as RootSpan
from mlflow_middleware.mlflow_seam.roots import TracesInside as TracesInside
from mlflow_middleware.mlflow_seam.roots import Unread as Unread
from mlflow_middleware.mlflow_seam.roots import Written as Written
from mlflow_middleware.mlflow_seam.roots import in_common as in_common

# Imported by MLflow or requests only when a trace starts or is sent. A fork in the middle of an import leaves its lock
# locked in the child for ever, so they are imported here, before there are threads.
for _late in ("mlflow.tracing.processor.otel", "mlflow.tracking.request_header.registry", "netrc"):
    importlib.import_module(_late)

_PROPAGATES: Any = getattr(mlflow.environment_variables, "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT", None)
"""Whether the current span is OpenTelemetry's too, where MLflow knows that option (3.15)."""

logger = logging.getLogger("mlflow_middleware")

MLFLOW_VERSION: str = mlflow.__version__

_DEFAULT_URI = "sqlite:///mlflow.db"
"""What MLflow takes for the tracking URI where nobody chose one and there is no old data."""


# --- the span of a request -------------------------------------------------------------------------------------


def open_root_span(
    name: str,
    describe: Describe,
    *,
    remote: SpanContext | None = None,
    adopt_remote: bool = False,
) -> RootSpan | None:
    """Start the root span of a new trace.

    Args:
        name: The span's name.
        describe: Says what the span holds; called when somebody asks, at the latest when the trace is sent.
        remote: The caller's span, from its ``traceparent``.
        adopt_remote: True makes the caller's span the parent; false links to it.

    Returns:
        The span; None when tracing is disabled or the trace is not sampled.
    """
    source = _source()
    if source.processor is not None and remote is None:
        return PlainRoot.open(source, name, describe)
    context = Context()
    links: Sequence[Link] = ()
    if remote is not None and adopt_remote:
        context = otel_set_span_in_context(NonRecordingSpan(remote), context)
    elif remote is not None:
        links = (Link(remote),)
    manager = InMemoryTraceManager.get_instance()
    is_shared = adopt_remote and bool(remote and _trace_id_of(manager, remote.trace_id))
    otel_span: Any = source.tracer.start_span(name, context=context, links=links)
    if not otel_span.is_recording():
        return None
    trace = manager._traces.get(manager.get_mlflow_trace_id_from_otel_id(otel_span.context.trace_id))
    span = trace.span_dict.get(f"{otel_span.context.span_id:016x}") if trace else None
    if span is None:
        return None
    ours = {SpanAttributeKey.REQUEST_ID: trace.info.trace_id, SpanAttributeKey.SPAN_TYPE: SpanType.CHAIN}
    encoding.set_attributes(otel_span, ours)
    root = MlflowRoot(span, trace, is_shared)
    if said := describe(trace.info.trace_metadata):
        root.add(said)
    return root


_known_source: Source | None = None


def _source() -> Source:
    """MLflow's tracer, which stays the same as long as its provider does; to get it takes 15 us each time."""
    global _known_source  # noqa: PLW0603
    known = _known_source
    now = provider.provider._isolated_tracer_provider if current.is_isolated() else provider.provider.get()
    if known is not None and known.provider is now:
        return known
    tracer = provider._get_tracer(__name__)
    processor = _sole_processor(tracer)
    ids: Any = getattr(tracer, "id_generator", None)
    if isinstance(ids, roots.Ids):
        ids = ids.around
    elif processor is not None:
        tracer.id_generator = roots.Ids(ids)
    lock = InMemoryTraceManager.get_instance()._lock
    takes_all = roots.takes_all(getattr(tracer, "sampler", None))
    source = Source(provider.provider.get(), tracer, processor, lock, takes_all, ids)
    _known_source = source
    return source


def _sole_processor(tracer: Any) -> _Processor | None:
    """Our span processor, where no other one has to see a request's root begin and end, and nothing limits its data."""
    processors: Any = getattr(getattr(tracer, "span_processor", None), "_span_processors", ())
    limits = getattr(tracer, "_span_limits", None)
    if len(processors) != 1 or limits is None or not isinstance(processors[0], _Processor):
        return None
    is_limited = limits.max_span_attribute_length is not None or (limits.max_span_attributes or 128) < 128
    is_plain = current.is_isolated() and processors[0].takes_plain_roots and not is_limited
    return processors[0] if is_plain and hasattr(tracer, "id_generator") and hasattr(tracer, "sampler") else None


def _trace_id_of(manager: InMemoryTraceManager, otel_id: int) -> str | None:
    """MLflow's id of a trace in flight; one of plain data is made into MLflow's objects."""
    with manager._lock:
        trace_id: str | None = manager.get_mlflow_trace_id_from_otel_id(otel_id)
        if trace_id is None and roots.made_of(otel_id):
            trace_id = manager.get_mlflow_trace_id_from_otel_id(otel_id)
        return trace_id


# --- from a finished trace to our delivery ---------------------------------------------------------------------


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
        trace: _Trace,
        finalize: Callable[[_Trace], None],
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
        roots.forget_contents(self._trace)

    def describe(self) -> None:
        """Do the first part of reading it; what `content` does otherwise."""

    def read_contents(self) -> None:
        """Do the second part."""

    def is_complete(self) -> bool:
        """Whether all of its spans have ended, and nothing more will come."""
        return not _has_open_spans(self._trace)

    def content(self, experiment_id: str) -> TraceContent:
        """Read it: the spans that have ended by now, and its info, with that experiment."""
        info, spans, read = self._read(experiment_id)
        prompts = [(prompt.name, str(prompt.version)) for prompt in self._trace.prompts]
        attachments = {key: each.content_bytes for span in spans for key, each in span._attachments.items()}
        as_text = () if is_databricks_uri(self.tracking_uri) else {each.text for each in read}
        otlp = encoding.spans_to_otlp(spans, as_text)
        root_ends = [span.end_time_ns for span in spans if _is_local_root(span._span)]
        outlived = bool(root_ends) and any(span.end_time_ns > max(root_ends) for span in spans)
        return TraceContent(otlp, encoding.info_to_json(info, spans), prompts, attachments, outlived)

    def entity(self, experiment_id: str) -> Trace:
        """Read it as what MLflow's own search would give."""
        info, spans, _ = self._read(experiment_id)
        return Trace(info, TraceData([span.to_immutable_span() for span in spans]))

    def _read(self, experiment_id: str) -> tuple[TraceInfo, list[LiveSpan], list[Written]]:
        self.is_read = True
        read = [
            each for span in list(self._trace.span_dict.values()) for each in roots.read_contents(self._trace, span)
        ]
        self._finalize(self._trace)
        info = copy.copy(self._trace.info)
        info.tags, info.trace_metadata = dict(info.tags), dict(info.trace_metadata)  # the app may go on
        info.trace_location = TraceLocation.from_experiment_id(experiment_id)
        spans = [span for span in list(self._trace.span_dict.values()) if span.end_time_ns is not None]
        if info.request_preview is None or info.response_preview is None:
            set_request_response_preview(info, TraceData(spans))
        return info, spans, read


def _size(span: LiveSpan) -> int:
    attached = sum(len(each.content_bytes) for each in span._attachments.values())
    return 500 + attached + roots.unread_of(span) + encoding.size_of_attributes(span._span)


def _has_open_spans(trace: _Trace) -> bool:
    return any(map(roots.is_open, list(trace.span_dict.values())))


class FinishedRequest(FinishedTrace):
    """A request's trace of which MLflow's objects were not made, or not before it had ended."""

    __slots__ = ("_root",)

    def __init__(
        self, tracking_uri: str, root: PlainRoot, finalize: Callable[[_Trace], None], supplement: bool = False
    ) -> None:
        self.tracking_uri = tracking_uri
        self.trace_id = root.trace_id
        self.experiment_id = root.experiment_id
        self.supplement = supplement
        self.captured_by = None
        self.is_read = False
        self.size = root.size
        self._root = root
        self._finalize = finalize

    def made(self, trace: _Trace) -> None:
        """MLflow's objects have been made."""
        self._trace = trace

    def forget_contents(self) -> None:
        """See `FinishedTrace`."""
        self._root.forget_contents()

    def describe(self) -> None:
        """See `FinishedTrace`."""
        self._root.describe()

    def read_contents(self) -> None:
        """See `FinishedTrace`."""
        self._root.read_contents()

    def is_complete(self) -> bool:
        """See `FinishedTrace`."""
        trace: _Trace | None = getattr(self, "_trace", None)
        return not (_has_open_spans(trace) if trace else self._root.is_open)

    def content(self, experiment_id: str) -> TraceContent:
        """See `FinishedTrace`."""
        self.is_read = True
        if not self._root.is_read():
            return super().content(experiment_id)
        otlp, info = self._root.encoded(experiment_id)
        self._root.encoded_as(self)
        return TraceContent(otlp, info, (), {}, outlived=False)

    def entity(self, experiment_id: str) -> Trace:
        """See `FinishedTrace`; it is made of MLflow's objects, and so are its supplements."""
        self._root.made()
        return super().entity(experiment_id)


MAX_OUTLIVED = 1000
"""Traces, delivered but for spans that are still open, that are kept so that such a span finds its trace."""


class _Exporter(SpanExporter):
    """Hands each trace to delivery when its root has ended, and again when a span has ended long after it.

    A trace stays registered with MLflow as long as one of its spans is open, so that such a span finds it.
    """

    def __init__(
        self,
        tracking_uri: str,
        put: Callable[[FinishedTrace], None],
        queue: object,
        finalize: Callable[[_Trace], None],
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
            if not _is_local_root(span) and otel_id not in self._outlived:
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


class _Processor(BaseMlflowSpanProcessor):
    """MLflow's own span processor, but for four things.

    It never asks the server for the experiment. It takes a span under a remote parent for the root of what this
    process knows of the trace. It needs no lock of its own, which a fork could leave locked. And it leaves the work at
    the end of a trace to the sender.
    """

    def __init__(self, tracking_uri: str, put: Callable[[FinishedTrace], None], queue: object) -> None:
        exporter = _Exporter(tracking_uri, put, queue, self._finalize)
        super().__init__(exporter, export_metrics=provider.should_export_otlp_metrics())
        current.set_isolated(MLFLOW_USE_DEFAULT_TRACER_PROVIDER.get() and not (_PROPAGATES and _PROPAGATES.get()))
        self._is_slim = is_slim()
        self._tracking_uri = tracking_uri
        self.put = put
        self.takes_plain_roots = not (
            self._export_metrics or MLFLOW_TRACE_TIMEOUT_SECONDS.get() or is_databricks_uri(tracking_uri)
        )
        self._destination_of_environment = provider._MLFLOW_TRACE_USER_DESTINATION._get_trace_location_from_env()

    def _metadata_of(self, run: Run | None) -> dict[str, Any]:
        metadata: dict[str, Any]
        if not self._is_slim:
            metadata = self._get_basic_trace_metadata()
            return metadata
        # without the prediction context, for which MLflow tries imports that fail: 10 us
        metadata = {**self._env_metadata, TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION)}
        if run:
            metadata[TraceMetadataKey.SOURCE_RUN] = run.info.run_id
        if model_id := fluent._get_active_model_id_global():
            metadata[TraceMetadataKey.MODEL_ID] = model_id
        return {**metadata, **(get_configured_trace_metadata() or {})}

    def _destination(self) -> object:
        """What ``mlflow.tracing.set_destination`` chose, else the environment: that was read at the start, to read it
        takes 5 us."""
        chosen = provider._MLFLOW_TRACE_USER_DESTINATION
        return chosen._context_local_value.get() or chosen._global_value or self._destination_of_environment

    def _get_basic_trace_tags(self, span: ReadableSpan | PlainRoot) -> dict[str, Any]:
        if not self._is_slim:
            tags: dict[str, Any] = super()._get_basic_trace_tags(span)
            return tags
        return {**(get_configured_trace_tags() or {}), TraceTagKey.TRACE_NAME: span.name}

    def _start_trace(self, root_span: Span) -> TraceInfo:
        begun = roots.being_made()
        info = begun.info(begun.experiment_id) if begun else self._info_of(root_span)
        self._trace_manager.register_trace(root_span.context.trace_id, info)
        return info

    def _info_of(self, root_span: Span) -> TraceInfo:
        run = fluent._get_latest_active_run()
        return TraceInfo(
            trace_id=generate_mlflow_trace_id_from_otel_trace_id(root_span.context.trace_id),
            trace_location=TraceLocation.from_experiment_id(_experiment_id(root_span, self._destination(), run)),
            request_time=(root_span.start_time or 0) // 1_000_000,
            execution_duration=None,
            state=TraceState.IN_PROGRESS,
            trace_metadata=self._metadata_of(run),
            tags=self._get_basic_trace_tags(root_span),
            client_request_id=inside.client_request_id if (inside := roots.inside.get()) else None,
        )

    def begin(self, root: PlainRoot) -> None:
        """Give a root that is plain data what MLflow gives to each trace when it begins, where it is of this moment."""
        run = fluent._get_latest_active_run() if _runs is None or _runs else None
        root.experiment_id = _chosen_experiment(self._destination(), run)
        inside = roots.inside.get()
        root.client_request_id = inside.client_request_id if inside else None
        root.has_surroundings = bool(run or not self._is_slim or _USER_TRACE_CONTEXT.get() or _may_have_a_model())
        if root.has_surroundings:
            root.tags, root.trace_metadata = self._get_basic_trace_tags(root), self._metadata_of(run)

    def describe(self, root: PlainRoot) -> None:
        """Give it the rest."""
        if not root.has_surroundings:
            root.tags = {}
            root.trace_metadata = {**self._env_metadata, TRACE_SCHEMA_VERSION_KEY: str(TRACE_SCHEMA_VERSION)}

    def finished(self, root: PlainRoot, supplement: bool = False) -> FinishedRequest:
        """A root that is plain data, as it waits for delivery."""
        return FinishedRequest(self._tracking_uri, root, self._finalize, supplement)

    def summary(self, texts: Mapping[str, str], usage: Mapping[str, int] | None) -> dict[str, str]:
        """What `_finalize` puts into a trace's metadata, for one that is a root without other spans.

        Args:
            texts: Its inputs and outputs, as JSON.
            usage: The tokens that it used.
        """
        found = {
            TraceMetadataKey.INPUTS: self._truncate_metadata(texts.get(SpanAttributeKey.INPUTS)),
            TraceMetadataKey.OUTPUTS: self._truncate_metadata(texts.get(SpanAttributeKey.OUTPUTS)),
        }
        if usage:
            found[TraceMetadataKey.TOKEN_USAGE] = json.dumps(dict(usage))
        return found

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        trace_id = self._trace_manager.get_mlflow_trace_id_from_otel_id(span.context.trace_id)
        if trace_id is None and not _is_local_root(span):
            trace_id = _trace_id_of(self._trace_manager, span.context.trace_id)
            if trace_id is None:
                return
        if trace_id is None:
            trace_id = self._start_trace(span).trace_id
        is_ours = span.instrumentation_scope is not None and span.instrumentation_scope.name == __name__
        live = _live_root(span, trace_id) if is_ours else create_mlflow_span(span, trace_id)
        if is_ours:
            roots.adopt(live, self.span_exporter)
        with self._trace_manager._lock:  # ``register_span`` decodes the trace id once more for that: 15 us
            trace = self._trace_manager._traces.get(trace_id)
            if trace is not None:
                trace.span_dict[f"{span.get_span_context().span_id:016x}"] = live

    def on_end(self, span: ReadableSpan) -> None:
        if self._export_metrics:
            self.record_metrics_for_span(span)
        if _is_local_root(span):
            _set_last_active_trace_id(self._trace_manager.get_mlflow_trace_id_from_otel_id(span.context.trace_id))
        self.span_exporter.export((span,))  # which makes no requests that would have to be kept from being traced

    def _finalize(self, trace: _Trace) -> None:
        """Bring the trace info up to date with the root; what MLflow does when the root ends."""
        spans = [span._span for span in list(trace.span_dict.values())]
        for root in filter(_is_local_root, spans):
            if any(key in encoding.attributes_of(span) for span in spans for key in _SUMMED_UP):
                self._update_trace_info(trace, root)
            else:
                self._update_plain_info(trace, root)

    def _update_plain_info(self, trace: _Trace, root: ReadableSpan) -> None:
        """What ``_update_trace_info`` does, without looking for token usage and cost in each span: 40 us."""
        attributes = encoding.attributes_of(root)
        start, end = root.start_time or 0, root.end_time or 0
        trace.info.request_time = start // 1_000_000
        trace.info.execution_duration = (end - start) // 1_000_000
        update_trace_state_from_span_conditionally(trace, root)
        trace.info.trace_metadata.update(
            {
                TraceMetadataKey.INPUTS: self._truncate_metadata(attributes.get(SpanAttributeKey.INPUTS)),
                TraceMetadataKey.OUTPUTS: self._truncate_metadata(attributes.get(SpanAttributeKey.OUTPUTS)),
            }
        )


def _of_all_threads(variable: Any) -> Mapping[int, Any] | None:
    """The values of a ``ThreadLocalVariable`` of MLflow's, by thread, where they are kept as is known here."""
    return getattr(variable, "_ThreadLocalVariable__global_thread_values", None)


_runs = _of_all_threads(fluent._active_run_stack)
"""The active runs of each thread that has had one; empty for most apps, so that MLflow need not look: 1 us."""

_models = _of_all_threads(fluent._ACTIVE_MODEL_CONTEXT)
"""Which model is active in each thread that has been asked."""


def _may_have_a_model() -> bool:
    """Whether some thread has an active model; to ask MLflow takes 1.2 us, this 0.2."""
    if not _models:
        return _models is None or bool(fluent._get_active_model_id_global())  # which asks this thread
    return any(each.model_id for each in list(_models.values()))


_LIVE_SPAN = {"_span", "_attachments", "_attributes", "_links", "_original_name"}
"""What a ``LiveSpan`` holds, as far as is known here."""

_is_known_live_span: bool | None = None


def _live_root(span: Span, trace_id: str) -> LiveSpan:
    """The ``LiveSpan`` of a request's root, without its two attributes, which are set with all the others: 15 us."""
    global _is_known_live_span  # noqa: PLW0603
    if not _is_known_live_span or span.links:
        live: LiveSpan = create_mlflow_span(span, trace_id, SpanType.CHAIN)
        _is_known_live_span = vars(live).keys() == _LIVE_SPAN
        return live
    live = LiveSpan.__new__(LiveSpan)
    live._span, live._attributes = span, _SpanAttributesRegistry(span)
    live._attachments, live._links, live._original_name = {}, [], span.name
    return live


_SUMMED_UP = (roots.USAGE, "mlflow.llm.cost")
"""Span attributes that MLflow sums up for the trace (mlflow/tracing/constant.py: CHAT_USAGE, LLM_COST)."""


def _is_local_root(span: ReadableSpan) -> bool:
    return span.parent is None or span.parent.is_remote


def _experiment_id(span: ReadableSpan, destination: object, run: Run | None) -> str | None:
    """The experiment that the app chose for this trace; None leaves it to the environment.

    The order is that of ``mlflow.tracing.utils.get_experiment_id_for_trace``, without its last step: a request
    to the server.
    """
    attributes = encoding.attributes_of(span)
    if attributes and (experiment_id := get_otel_attribute(span, SpanAttributeKey.EXPERIMENT_ID)):
        return str(experiment_id)
    return _chosen_experiment(destination, run)


def _chosen_experiment(destination: object, run: Run | None) -> str | None:
    if experiment_id := getattr(destination, "experiment_id", None):
        return str(experiment_id)
    if run:
        return str(run.info.experiment_id)
    return active_experiment_id()


def active_experiment_id() -> str | None:
    """The experiment that ``mlflow.set_experiment`` chose, if it was called."""
    chosen: str | None = fluent._active_experiment_id
    return chosen


def set_active_experiment(experiment_id: str) -> None:
    """Tell MLflow what the environment's experiment is, unless the app has chosen one meanwhile."""
    if fluent._active_experiment_id is None:
        fluent._active_experiment_id = experiment_id


def is_known_shape() -> bool:
    """Whether MLflow builds its span processors in the way that `install` knows."""
    return list(inspect.signature(provider._get_mlflow_span_processor).parameters) == ["tracking_uri"]


def rebuild() -> None:
    """Make MLflow build its span processor anew, for the traces that begin from now on."""
    if provider.provider.once._done and provider.is_tracing_enabled():
        provider.provider.reset()


def install(accepts: Callable[[str], bool], put: Callable[[FinishedTrace], None], queue: object) -> None:
    """Make MLflow build its span processors with our exporter; a second call does nothing.

    The factory function is replaced, not a processor: MLflow builds its processors anew on ``set_experiment``,
    ``set_tracking_uri``, ``set_destination``, ``tracing.reset`` and ``enable``.

    Args:
        accepts: Whether our delivery serves a tracking URI; for others MLflow's own processor is built.
        put: Takes a finished trace; never blocks, never raises.
        queue: An object with ``flush(terminate=False)``, for ``mlflow.flush_trace_async_logging()``.
    """
    if is_slim():  # to find the default, MLflow looks for old data with a module that the slim package has not
        tracking_service._get_default_tracking_uri = lambda: _DEFAULT_URI
    original = provider._get_mlflow_span_processor
    if hasattr(original, "replaced_by_mlflow_middleware"):
        return
    if not is_known_shape():
        logger.warning(
            "mlflow %s builds its span processors in a way that is not known here; its own exporter stays in place",
            MLFLOW_VERSION,
        )
        return
    _forget_missing_modules()
    _keep_traces_in_flight()
    _survive_forks()

    @functools.wraps(original)
    def build(tracking_uri: str) -> BaseMlflowSpanProcessor:
        if not accepts(tracking_uri):
            return original(tracking_uri)
        return _Processor(tracking_uri, put, queue)

    build.replaced_by_mlflow_middleware = True  # type: ignore[attr-defined]
    provider._get_mlflow_span_processor = build
    rebuild()


def _forget_missing_modules() -> None:
    """Make imports fail at once that MLflow tries again for each root span, and that slim MLflow has not.

    That saves about 100 us a request, and an import lock that can stay locked in a forked child.
    """
    if is_slim():
        for name in ("mlflow.pyfunc", "mlflow.pyfunc.context", "mlflow.agent", "mlflow.agent.hint"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]


class _InFlight(dict[str, _Trace]):
    """MLflow's registry of traces in flight, without its limits of 1,000 traces and one hour.

    It finds requests that are plain data, too.
    """

    def get(self, trace_id: str, default: Any = None) -> Any:
        found = super().get(trace_id)
        if found is None and roots.made_of(trace_id):
            found = super().get(trace_id)
        return default if found is None else found

    def __setitem__(self, trace_id: str, trace: _Trace) -> None:
        super().__setitem__(trace_id, trace)
        if len(self) > MAX_IN_FLIGHT:
            oldest = next(iter(self))
            del self[oldest]
            InMemoryTraceManager.get_instance()._otel_id_to_mlflow_trace_id.pop(int(oldest[-32:], 16), None)


def _keep_traces_in_flight() -> None:
    """Put `_InFlight` in place, unless the operator has asked MLflow to end traces after a time."""
    original = trace_manager.get_trace_cache_with_timeout

    @functools.wraps(original)
    def registry() -> Any:
        return original() if MLFLOW_TRACE_TIMEOUT_SECONDS.get() else _InFlight()

    trace_manager.get_trace_cache_with_timeout = registry
    manager = InMemoryTraceManager.get_instance()
    with manager._lock:
        kept, manager._traces = manager._traces, registry()
        for trace_id, trace in kept.items():
            manager._traces[trace_id] = trace


def _survive_forks() -> None:
    """Leave no lock of MLflow's locked in a child that was forked while another thread traced."""
    if not hasattr(os, "register_at_fork"):
        return
    lock = InMemoryTraceManager.get_instance()._lock  # held over the fork, so that the child gets whole dicts
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    os.register_at_fork(after_in_child=_unlock_provider)
    os.register_at_fork(after_in_child=_unlock_imports)


def _unlock_imports() -> None:
    """Forget the locks of imports that another thread had begun when it was forked away.

    MLflow tries to import what is not installed (``dbruntime``) with each request to the server, so a fork meets one
    now and then. CPython gives the child a new lock for its table of modules, but not for each module's import.
    """
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None)
    if isinstance(locks, dict):
        locks.clear()


def _unlock_provider() -> None:
    for once in (provider.provider._isolated_tracer_provider_once, provider.provider._global_provider_init_once):
        once._Once__lock = threading.Lock()


# --- the tracking server ---------------------------------------------------------------------------------------


def tracking_uri() -> str:
    """The tracking URI that MLflow would use now."""
    if is_slim() and not is_tracking_uri_set():  # to find the default, MLflow needs a module of the full package
        return _DEFAULT_URI
    return str(mlflow.get_tracking_uri())


def is_tracking_uri_set() -> bool:
    """Whether anybody chose a tracking URI, or it is only MLflow's default."""
    return bool(mlflow.is_tracking_uri_set())


def is_slim() -> bool:
    """Whether only ``mlflow-tracing`` is installed, not full ``mlflow``."""
    return bool(mlflow.version.IS_TRACING_SDK_ONLY)


def request(tracking_uri: str, method: str, path: str, *, timeout: float, **kwargs: Any) -> Response:
    """One request to a tracking server, with MLflow's credentials and TLS settings, and without its retries.

    Args:
        tracking_uri: The server.
        method: The HTTP method.
        path: The path below the tracking URI, with its leading slash.
        timeout: Seconds to wait for a connection, and for each read.
        kwargs: ``json``, ``data``, ``params`` or ``extra_headers``.

    Raises:
        mlflow.exceptions.MlflowException: No answer came.
    """
    credentials, signed_in = _sign_in(tracking_uri)
    headers = {**signed_in, **kwargs.pop("extra_headers", {})}
    response: Response = http_request(
        credentials,
        path,
        method,
        max_retries=0,
        raise_on_status=False,
        timeout=timeout,
        extra_headers=headers,
        **kwargs,
    )
    return response


@dataclass(frozen=True, slots=True)
class Address:
    """How to talk to a server over a connection of one's own.

    Attributes:
        host: Its name or IP address.
        port: Its port.
        tls: How its certificate is verified; None for plain HTTP.
        path: What stands before each path.
        headers: What each request carries: ``Host``, credentials, MLflow's own.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    path: str
    headers: Mapping[str, str]


def address_of(tracking_uri: str, path: str, answered: Response) -> Address | None:
    """How to send more requests like one that MLflow's client has just sent.

    Args:
        tracking_uri: The server.
        path: What was asked for below the tracking URI.
        answered: The answer.

    Returns:
        The address; None where MLflow's client does more than headers can say: it goes through a proxy, follows a
        redirect, or signs each request by itself.
    """
    credentials, _ = _sign_in(tracking_uri)
    url = answered.request.url or ""
    if credentials.aws_sigv4 or credentials.auth or answered.history or not url.endswith(path):
        return None
    if select_proxy(url, get_environ_proxies(url, no_proxy=None)):
        return None
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    skipped = {"content-length", "content-type", "accept-encoding", "connection", "x-mlflow-experiment-id"}
    headers = {name: str(value) for name, value in answered.request.headers.items() if name.lower() not in skipped}
    if not any(name.lower() == "host" for name in headers):
        headers["Host"] = parts.netloc.rpartition("@")[2]
    tls = _tls(credentials) if parts.scheme == "https" else None
    return Address(parts.hostname or "", port, tls, parts.path.removesuffix(path), headers)


def _tls(credentials: MlflowHostCreds) -> ssl.SSLContext:
    """As ``requests`` would verify the server, and show who we are."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    bundle = credentials.verify if isinstance(credentials.verify, str) else bundle
    is_folder = os.path.isdir(bundle)
    context = ssl.create_default_context(cafile=None if is_folder else bundle, capath=bundle if is_folder else None)
    if credentials.verify is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if credentials.client_cert_path:
        context.load_cert_chain(credentials.client_cert_path)
    return context


_workspaces: dict[str, tuple[MlflowHostCreds, Any]] = {}


def _sign_in(tracking_uri: str) -> tuple[MlflowHostCreds, dict[str, str]]:
    """Where a tracking server is, and how to sign in there.

    The Databricks SDK is asked for the headers only: its requests share connections with a forked child, are sent again
    for up to a minute, and hide ``Retry-After``. MLflow would look up each workspace anew for each request.
    """
    if tracking_uri not in _workspaces:
        credentials = tracking_service._get_store(tracking_uri).get_host_creds()
        if not credentials.use_databricks_sdk:
            return credentials, {}
        config = get_workspace_client(
            credentials.use_secret_scope_token,
            credentials.host,
            credentials.token,
            credentials.databricks_auth_profile,
        ).config
        plain = copy.copy(credentials)
        plain.host, plain.token, plain.use_databricks_sdk = config.host, None, False
        plain.ignore_tls_verification = bool(config.skip_verify)
        _workspaces[tracking_uri] = (plain, config)
    plain, config = _workspaces[tracking_uri]
    return plain, config.authenticate()


SESSION = TraceMetadataKey.TRACE_SESSION
USER = TraceMetadataKey.TRACE_USER
NAME = TraceTagKey.TRACE_NAME


def found_traces(reply: dict[str, Any]) -> list[TraceInfo]:
    """The traces that ``POST /api/3.0/mlflow/traces/search`` answered with, without assessments of unknown kinds."""
    answer = ParseDict(reply, SearchTracesV3.Response(), ignore_unknown_fields=True)
    for trace in answer.traces:
        known = [each for each in trace.assessments if each.WhichOneof("value")]
        del trace.assessments[:]
        trace.assessments.extend(known)
    return [TraceInfo.from_proto(trace) for trace in answer.traces]


def upload_spans(tracking_uri: str, reply: dict[str, Any], otlp: bytes, *, timeout: float) -> None:
    """Store a trace's spans as an artifact, where the server does not keep them in its database.

    Args:
        tracking_uri: The server.
        reply: What ``POST /api/3.0/mlflow/traces`` answered; it says where the artifact goes.
        otlp: The spans, as an OTLP request.
        timeout: Seconds to wait for a connection, and for each read.

    Raises:
        requests.HTTPError: A Databricks workspace, or its storage, did not take them.
    """
    answer = ParseDict(reply, StartTraceV3.Response(), ignore_unknown_fields=True)
    info = TraceInfo.from_proto(answer.trace.trace_info)
    request = ExportTraceServiceRequest.FromString(otlp)
    spans = [
        MlflowSpan.from_otel_proto(span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    if not is_databricks_uri(tracking_uri):
        for span in spans:
            encoding.undo_text(span)
    client = TracingClient(tracking_uri)
    if isinstance(client._get_artifact_repo_for_trace(info), DatabricksArtifactRepository):
        client._get_artifact_repo_for_trace = lambda info: _Storage(tracking_uri, info, timeout)
    client._upload_trace_data(info, TraceData(spans))


def upload_attachments(tracking_uri: str, reply: dict[str, Any], attachments: Mapping[str, bytes]) -> None:
    """Store a trace's attachments as artifacts.

    Args:
        tracking_uri: The server.
        reply: What ``POST /api/3.0/mlflow/traces`` answered; it says where artifacts go.
        attachments: The files, by their ids.
    """
    answer = ParseDict(reply, StartTraceV3.Response(), ignore_unknown_fields=True)
    repository = TracingClient(tracking_uri)._get_artifact_repo_for_trace(TraceInfo.from_proto(answer.trace.trace_info))
    for key, content in attachments.items():
        repository.upload_attachment(key, content)


class _Storage(DatabricksArtifactRepository):
    """MLflow's upload to a workspace's storage, without its retries, which take minutes."""

    def __init__(self, tracking_uri: str, info: TraceInfo, timeout: float) -> None:
        super().__init__(get_artifact_uri_for_trace(info))
        self._uri, self._trace_id, self._timeout = tracking_uri, info.trace_id, timeout

    def _get_upload_trace_data_cred_info(self) -> Any:
        path = f"/api/2.0/mlflow/traces/{self._trace_id}/credentials-for-data-upload"
        response = request(self._uri, "GET", path, timeout=self._timeout)
        response.raise_for_status()
        reply = GetCredentialsForTraceDataUpload.Response()
        return ParseDict(response.json(), reply, ignore_unknown_fields=True).credential_info

    def _signed_url_upload_file(self, credentials: Any, local_file: str) -> None:
        headers = self._extract_headers_from_credentials(credentials.headers)
        with open(local_file, "rb") as file:
            response = _get_http_response_with_retries(
                "PUT", credentials.signed_uri, 0, 0, 0, (), False, data=file, headers=headers, timeout=self._timeout
            )
        response.raise_for_status()
