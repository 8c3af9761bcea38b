"""The opening of the root span of a request."""

from __future__ import annotations

import functools
import time
from typing import Any

from mlflow.entities import LiveSpan
from mlflow.tracing import provider
from mlflow.tracing.processor.base_mlflow import BaseMlflowSpanProcessor
from mlflow.tracing.processor.otel import OtelSpanProcessor
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind

from mlflow_middleware.mlflow_bridge import context, registry
from mlflow_middleware.mlflow_bridge.ids import Ids
from mlflow_middleware.mlflow_bridge.interface import RootSpan
from mlflow_middleware.mlflow_bridge.materialize import Objects, mark_as_root, remote_context, root_of, started
from mlflow_middleware.mlflow_bridge.processor import SCOPE, Processor
from mlflow_middleware.mlflow_bridge.root import Root, Source
from mlflow_middleware.mlflow_bridge.span_attributes import is_local_root
from mlflow_middleware.trace.description import describe, first_name
from mlflow_middleware.trace.record import SpanIds, Surroundings, TraceRecord

_NO_CONTEXT = Context()


def open_root_span(
    record: TraceRecord, *, remote: SpanIds | None = None, adopt_remote: bool = False
) -> RootSpan | None:
    """See `interface.Tracing`."""
    source = _source()
    if context.is_unified and (around := context.surrounding_span()):
        return _begin_inside(source, record, around)
    is_shared = False
    if remote and adopt_remote:
        record.parent_id = remote.span_id
        is_shared = registry.is_in_flight(InMemoryTraceManager.get_instance(), remote.trace_id)
    else:
        record.caller = remote
    parent = remote if adopt_remote else None
    if source.is_lazy and not is_shared:
        return begin(source, record, parent)
    return _begin_materialized(source, record, remote_context(parent) if parent else None, is_shared)


def begin(source: Source, record: TraceRecord, parent: SpanIds | None = None) -> Root | None:
    """Begin a root that is materialized only on demand; return None if it is not sampled."""
    trace_id = parent.trace_id if parent else source.ids.generate_trace_id()
    method = record.exchange.method
    sampled = source.tracer.sampler.should_sample(_NO_CONTEXT, trace_id, method, SpanKind.SERVER, None, ())
    if source.processor is None or not sampled.decision.is_recording():
        return None
    record.begin(SpanIds(trace_id, source.ids.generate_span_id()), time.time_ns())
    source.processor.begin(record)
    root = Root(source, record)
    registry.add(root)
    return root


def _begin_inside(source: Source, record: TraceRecord, around: Any) -> Root | None:
    """Begin a root under a span of the app's own OpenTelemetry, in that span's trace."""
    parent = around.get_span_context()
    record.parent_id = parent.span_id
    if not _spans_of(parent.trace_id) and source.processor:  # it began before MLflow was set up
        source.processor.on_start(around)
    spans = _spans_of(parent.trace_id)
    is_shared = any(map(_has_own_info, spans))
    known = SpanContext(parent.trace_id, parent.span_id, is_remote=not spans, trace_flags=parent.trace_flags)
    root = _begin_materialized(source, record, known, is_shared)
    if root and root.objects:
        root.objects.is_leading = not is_shared
    return root


def _spans_of(otel_id: int) -> list[LiveSpan]:
    """Return MLflow's spans of a trace."""
    manager = InMemoryTraceManager.get_instance()
    trace = manager._traces.get(manager.get_mlflow_trace_id_from_otel_id(otel_id))
    return list(trace.span_dict.values()) if trace else []


def _has_own_info(span: LiveSpan) -> bool:
    """Return whether a span is the first of a trace that was begun with MLflow or by another of our requests."""
    scope = span._span.instrumentation_scope
    name = scope.name if scope else ""
    return root_of(span) is not None or (is_local_root(span._span) and name.startswith("mlflow"))


def _begin_materialized(
    source: Source, record: TraceRecord, parent: SpanContext | None, is_shared: bool
) -> Root | None:
    """Begin a root that is materialized from the start, because other span processors see it."""
    otel = started(source.tracer, first_name(record.exchange), parent, record, None)
    if not otel.is_recording():
        return None
    manager = InMemoryTraceManager.get_instance()
    trace = manager._traces.get(manager.get_mlflow_trace_id_from_otel_id(otel.context.trace_id))
    live = trace.span_dict.get(f"{otel.context.span_id:016x}") if trace else None
    if live is None:
        return None
    info = trace.info
    record.begin(SpanIds(otel.context.trace_id, otel.context.span_id), otel.start_time)
    record.experiment_id = info.experiment_id
    if record.settings.experiment:
        record.go_to(record.experiment_id)
    record.surroundings = Surroundings(dict(info.tags), dict(info.trace_metadata), info.client_request_id)
    root = Root(source, record, objects := Objects(live, trace, is_shared=is_shared))
    mark_as_root(live, root)
    objects.give(describe(record))
    return root


_known_source: Source | None = None


def _source() -> Source:
    """Return MLflow's tracer, which stays the same until its provider is replaced."""
    global _known_source  # noqa: PLW0603
    known = _known_source
    now = provider.provider._isolated_tracer_provider if context.is_isolated() else provider.provider.get()
    if known is not None and known.provider is now:
        return known
    tracer = provider._get_tracer(SCOPE)
    if not context.is_isolated() and not _has_processor(tracer):  # the app has set its own provider
        provider.provider.once._done = False
        tracer = provider._get_tracer(SCOPE)
    if context.is_isolated():
        _keep_tracers(provider.provider.get())
    processors = processors_of(tracer)
    ours = next((each for each in processors if isinstance(each, Processor)), None)
    is_lazy = ours is not None and len(processors) == 1 and ours.is_lazy and _is_plain(tracer)
    ids: Any = getattr(tracer, "id_generator", None)
    if isinstance(ids, Ids):
        ids = ids.around
    elif is_lazy:
        tracer.id_generator = Ids(ids)
    lock = InMemoryTraceManager.get_instance()._lock
    longest = getattr(getattr(tracer, "_span_limits", None), "max_span_attribute_length", None)
    _known_source = source = Source(provider.provider.get(), tracer, ours, is_lazy, lock, ids, longest)
    return source


def processors_of(tracer: Any) -> Any:
    """Return the span processors of a tracer's provider."""
    return getattr(getattr(tracer, "span_processor", None), "_span_processors", ())


def _has_processor(tracer: Any) -> bool:
    """Return whether MLflow has a processor there, or there are no processors because tracing is disabled."""
    known = BaseMlflowSpanProcessor, OtelSpanProcessor
    return not hasattr(tracer, "span_processor") or any(isinstance(each, known) for each in processors_of(tracer))


def _keep_tracers(tracer_provider: Any) -> None:
    """Cache the tracers of a provider by name, since MLflow requests one for each span that it starts."""
    original = tracer_provider.get_tracer
    kept = functools.lru_cache(maxsize=64)(original)

    @functools.wraps(original)
    def get_tracer(name: str, *args: Any, **kwargs: Any) -> Any:
        return original(name, *args, **kwargs) if args or kwargs else kept(name)

    tracer_provider.get_tracer = get_tracer


def _is_plain(tracer: Any) -> bool:
    """Return whether a tracer does not limit attributes, and MLflow has its own current span."""
    limits = getattr(tracer, "_span_limits", None)
    if limits is None or not (hasattr(tracer, "id_generator") and hasattr(tracer, "sampler")):
        return False
    is_limited = limits.max_span_attribute_length is not None or (limits.max_span_attributes or 128) < 128
    return context.is_isolated() and not is_limited
