"""The current span of MLflow in this context: a request's root, a span inside it, or one that does not record."""

from __future__ import annotations

from contextvars import ContextVar, Token

from mlflow.tracing import provider
from mlflow.tracing.provider import detach_span_from_context, set_span_in_context
from opentelemetry.context import Context
from opentelemetry.context import get_current as otel_current_context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, get_current_span
from opentelemetry.trace import Span as OTelSpan
from opentelemetry.trace import set_span_in_context as otel_set_span_in_context

from mlflow_middleware.mlflow_bridge.interface import Entered, Undo
from mlflow_middleware.trace.record import SpanIds

_NOWHERE: ContextVar[Context] = ContextVar("mlflow_middleware_nowhere")
_isolated: ContextVar[Context] = getattr(
    getattr(provider, "mlflow_runtime_context", None), "_current_context", _NOWHERE
)
"""The variable with MLflow's own current span. MLflow's functions read the environment on each call."""

if not isinstance(_isolated, ContextVar):
    raise TypeError("MLflow's current span is not kept in a context variable")

_is_isolated = False

_mark: ContextVar[None] = ContextVar("mlflow_middleware_mark")

is_unified = False
"""Whether MLflow uses the tracer provider of the whole process."""

_forked_in: ContextVar[SpanIds | None] = ContextVar("mlflow_middleware_forked_in", default=None)


def set_isolated(is_isolated: bool) -> None:
    """Set whether MLflow has its own current span, separate from OpenTelemetry's; known when its provider is built."""
    global _is_isolated  # noqa: PLW0603
    _is_isolated = is_isolated and _isolated is not _NOWHERE


def is_isolated() -> bool:
    """Return whether MLflow has its own current span, separate from OpenTelemetry's."""
    return _is_isolated


def set_unified(is_so: bool) -> None:
    """Set `is_unified`; known when MLflow's processor is built."""
    global is_unified  # noqa: PLW0603
    is_unified = is_so


def surrounding_span() -> OTelSpan | None:
    """Return the current span of the app's own OpenTelemetry, if it is recorded."""
    span = get_current_span()
    return span if span.is_recording() else None


def attach(span: OTelSpan) -> Entered:
    """Make a span current, until `leave`."""
    if _is_isolated:
        return _isolated.set(otel_set_span_in_context(span, _isolated.get()))
    return _made_current(span)


def leave(entered: Entered) -> Context:
    """Restore the previous current span; call this in the same context.

    Returns:
        The context until now, for `resume`.
    """
    if not isinstance(entered, Token):
        left = current_context()
        entered()
        return left
    left = _isolated.get()
    try:
        _isolated.reset(entered)
    except ValueError as error:  # an async generator that ends in another task's context
        if "different Context" not in str(error):
            raise
    return left


def silence() -> Undo:
    """Make every MLflow span opened from here a no-op; return a function that undoes it in the same context."""
    unsampled = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.DEFAULT))
    return _made_current(NonRecordingSpan(unsampled))


def _made_current(span: OTelSpan) -> Undo:
    """Make a span current with MLflow's own functions; return a function that undoes it.

    In another task's context, where a connection may end, the undo does nothing: OpenTelemetry would log an error.
    """
    entered, mark = set_span_in_context(_Carrier(span)), _mark.set(None)

    def undo() -> None:
        try:
            _mark.reset(mark)
        except ValueError as error:
            if "different Context" not in str(error):
                raise
        else:
            detach_span_from_context(entered)

    return undo


def current_context() -> Context:
    """Return MLflow's current context, for `resume`."""
    if _is_isolated:
        return _isolated.get()
    context: Context | None = provider.get_current_context()
    return otel_current_context() if context is None else context


def resume(context: Context) -> Entered:
    """Restore a context until `leave`."""
    if _is_isolated:
        return _isolated.set(context)
    return _made_current(get_current_span(context))


def current_span() -> SpanIds | None:
    """Return MLflow's current span if it is stored; it may be the ended root of a request."""
    span = get_current_span(provider.get_current_context())
    if isinstance(span, NonRecordingSpan):
        return None
    known = span.get_span_context()
    return SpanIds(known.trace_id, known.span_id)


def leave_to_parent() -> None:
    """Leave the current span to the parent process, where it ends; spans in this forked child form their own traces."""
    if current := current_span():
        set_span_in_context(_Carrier(INVALID_SPAN))
        _forked_in.set(current)


def forked_in() -> SpanIds | None:
    """Return the parent process's span that was current at the fork, mostly a request's; None if there was none."""
    return _forked_in.get()


class _Carrier:
    """The argument of `set_span_in_context`: an object that holds an OpenTelemetry span."""

    def __init__(self, span: OTelSpan) -> None:
        self._span = span
