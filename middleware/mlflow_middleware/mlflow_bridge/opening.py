"""Opens the root span of a request."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from mlflow.tracing import provider
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from mlflow_middleware.mlflow_bridge import context, keys, registry, span_attributes
from mlflow_middleware.mlflow_bridge.ids import Ids
from mlflow_middleware.mlflow_bridge.mlflow_root import MlflowRoot
from mlflow_middleware.mlflow_bridge.plain_root import PlainRoot, Source
from mlflow_middleware.mlflow_bridge.processor import SCOPE, Processor
from mlflow_middleware.mlflow_bridge.root_span import Describe, RootSpan, SpanIds


def open_root_span(
    name: str,
    describe: Describe,
    *,
    remote: SpanIds | None = None,
    adopt_remote: bool = False,
) -> RootSpan | None:
    """See `interface.Tracing`."""
    source = _source()
    if source.processor is not None and remote is None:
        return PlainRoot.open(source, name, describe)
    around = Context()
    links: Sequence[Link] = ()
    caller = remote and SpanContext(*remote, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    if caller and adopt_remote:
        around = set_span_in_context(NonRecordingSpan(caller), around)
    elif caller:
        links = (Link(caller),)
    manager = InMemoryTraceManager.get_instance()
    is_shared = adopt_remote and bool(caller and registry.is_in_flight(manager, caller.trace_id))
    otel_span: Any = source.tracer.start_span(name, context=around, links=links)
    if not otel_span.is_recording():
        return None
    trace = manager._traces.get(manager.get_mlflow_trace_id_from_otel_id(otel_span.context.trace_id))
    span = trace.span_dict.get(f"{otel_span.context.span_id:016x}") if trace else None
    if span is None:
        return None
    ours = {keys.REQUEST_ID: trace.info.trace_id, keys.SPAN_TYPE: keys.CHAIN}
    span_attributes.set_attributes(otel_span, ours)
    root = MlflowRoot(span, trace, is_shared)
    if said := describe(trace.info.trace_metadata):
        root.add(said)
    return root


_known_source: Source | None = None


def _source() -> Source:
    """MLflow's tracer, which stays the same as long as its provider does; to get it takes 15 us each time."""
    global _known_source  # noqa: PLW0603
    known = _known_source
    now = provider.provider._isolated_tracer_provider if context.is_isolated() else provider.provider.get()
    if known is not None and known.provider is now:
        return known
    tracer = provider._get_tracer(SCOPE)
    if context.is_isolated():
        _keep_tracers(provider.provider.get())
    processor = _sole_processor(tracer)
    ids: Any = getattr(tracer, "id_generator", None)
    if isinstance(ids, Ids):
        ids = ids.around
    elif processor is not None:
        tracer.id_generator = Ids(ids)
    lock = InMemoryTraceManager.get_instance()._lock
    source = Source(provider.provider.get(), tracer, processor, lock, ids)
    _known_source = source
    return source


def _keep_tracers(tracer_provider: Any) -> None:
    """Give the same tracer to all who ask by the same name, as MLflow does for each span that it starts."""
    original = tracer_provider.get_tracer
    kept = functools.lru_cache(maxsize=64)(original)

    @functools.wraps(original)
    def get_tracer(name: str, *args: Any, **kwargs: Any) -> Any:
        return original(name, *args, **kwargs) if args or kwargs else kept(name)

    tracer_provider.get_tracer = get_tracer


def _sole_processor(tracer: Any) -> Processor | None:
    """Our span processor, where no other one has to see a request's root begin and end, and nothing limits its data."""
    processors: Any = getattr(getattr(tracer, "span_processor", None), "_span_processors", ())
    limits = getattr(tracer, "_span_limits", None)
    if len(processors) != 1 or limits is None or not isinstance(processors[0], Processor):
        return None
    is_limited = limits.max_span_attribute_length is not None or (limits.max_span_attributes or 128) < 128
    is_plain = context.is_isolated() and processors[0].takes_plain_roots and not is_limited
    return processors[0] if is_plain and hasattr(tracer, "id_generator") and hasattr(tracer, "sampler") else None
