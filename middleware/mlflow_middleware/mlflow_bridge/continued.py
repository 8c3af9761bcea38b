"""The addition of spans to an earlier trace, mostly of another process."""

from __future__ import annotations

import contextlib

from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, get_current_span

from mlflow_middleware.mlflow_bridge import context, inside, opening, registry
from mlflow_middleware.mlflow_bridge.current_span import CurrentSpan
from mlflow_middleware.mlflow_bridge.earlier import Earlier, earlier
from mlflow_middleware.mlflow_bridge.interface import Undo
from mlflow_middleware.mlflow_bridge.root import Root
from mlflow_middleware.trace.record import SpanIds


def continue_trace(ids: SpanIds, experiment_id: str | None, *, keeps_words: bool = True) -> Undo | None:
    """See `interface.Tracing`."""
    source = opening._source()
    if source.processor is None:
        return None
    with source.lock:
        root = registry.in_flight.get(ids.trace_id)
        if root:  # of this process and still open: it stays open for its guests
            registry.guest_came(ids.trace_id)
    get_current_span(context.current_context()).add_link(_context(ids))
    token, words = earlier.set(Earlier(ids, experiment_id)), inside.keeps_words.set(keeps_words)
    entered = context.attach(_current(root) if root else NonRecordingSpan(_context(ids)))

    def undo() -> None:
        context.leave(entered)
        with contextlib.suppress(ValueError):  # a generator that ends in another context
            earlier.reset(token)
            inside.keeps_words.reset(words)
        if root:
            root.guest_left()

    return undo


def current_span() -> SpanIds | None:
    """See `interface.Tracing`; the root of a continued trace if no span is open."""
    if known := earlier.get():
        here: SpanContext | None = get_current_span(context.current_context()).get_span_context()
        if here and here[:2] == known.ids:
            return known.ids
    return context.current_span()


def _current(root: Root) -> Span:
    span: Span = root.objects.otel if root.objects else CurrentSpan(root)
    return span


def _context(ids: SpanIds) -> SpanContext:
    return SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
