"""Other tracing tools in the process: each shows the other's trace id.

None of them is imported here. Those that are there are found with the first request; a process that has none asks no
more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.request.activation import current_request
from mlflow_middleware.trace.record import TraceRecord

TRACE_ID = "mlflow.trace_id"
"""What our trace id is called there: an attribute of OpenTelemetry's spans, a tag of Sentry's and Datadog's."""

Tool = Callable[[TraceRecord], Mapping[str, str]]
"""Shows a tool our trace id, where it follows this request; returns attributes with its ids."""

are_there = True
"""Whether there are any; true until they have been looked for."""

_tools: tuple[Tool, ...] | None = None


@guarded
def meet(record: TraceRecord) -> None:
    """Exchange trace ids with the tools that follow a request: those around us first, those inside once it answers."""
    global _tools, are_there  # noqa: PLW0603 - looked for once
    if _tools is None:
        _tools = ()
        _tools = _found() or ()
        are_there = bool(_tools)
    for tool in _tools if record.trace_id else ():
        if found := tool(record):
            record.others = {**found, **record.others}


@guarded
def _found() -> tuple[Tool, ...]:
    candidates = (_opentelemetry, _sentry, _datadog)
    return tuple(tool for find in candidates if (tool := find()) is not None)


def _opentelemetry() -> Tool | None:
    """Return an SDK of the app's own, or what instruments it for one. MLflow's own spans are in another provider."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    sdk: Any = sys.modules.get("opentelemetry.sdk.trace")
    provider = trace.get_tracer_provider() if trace and sdk else None
    if provider is None or isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    if hasattr(provider, "add_span_processor"):
        provider.add_span_processor(_stamp(sdk.SpanProcessor))

    def tell(record: TraceRecord) -> Mapping[str, str]:
        return _stamped(record, trace.get_current_span())

    return tell


def _stamp(base: type[Any]) -> Any:
    """What marks the spans that begin inside a request, and are the first of their trace here."""

    class Stamp(base):  # type: ignore[misc]
        """Marks spans with our trace id."""

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            """See ``SpanProcessor``."""
            request = current_request.get()
            if request and request.trace_id and (span.parent is None or span.parent.is_remote):
                request.record.others = {**_stamped(request.record, span), **request.record.others}

    return Stamp()


def _stamped(record: TraceRecord, span: Any) -> Mapping[str, str]:
    ids = span.get_span_context()
    if not ids.is_valid or ids.trace_id == record.ids.trace_id:  # it is none, or in our own trace
        return {}
    if span.is_recording():
        span.set_attribute(TRACE_ID, record.trace_id)
    return {"otel.trace_id": f"{ids.trace_id:032x}", "otel.span_id": f"{ids.span_id:016x}"}


def _sentry() -> Tool | None:
    sentry: Any = sys.modules.get("sentry_sdk")
    if sentry is None:
        return None

    def tell(record: TraceRecord) -> Mapping[str, str]:
        scope = sentry.get_current_scope()
        if not sentry.get_client().is_active() or scope.transaction is None:  # what follows no request is everybody's
            return {}
        sentry.get_isolation_scope().set_tag(TRACE_ID, record.trace_id)
        scope.transaction.set_tag(TRACE_ID, record.trace_id)
        ids = scope.get_trace_context()
        return {"sentry.trace_id": str(ids["trace_id"]), "sentry.span_id": str(ids["span_id"])}

    return tell


def _datadog() -> Tool | None:
    tracer: Any = getattr(sys.modules.get("ddtrace.trace"), "tracer", None)
    tracer = tracer or getattr(sys.modules.get("ddtrace"), "tracer", None)
    if tracer is None:
        return None

    def tell(record: TraceRecord) -> Mapping[str, str]:
        span = tracer.current_root_span()
        if span is None:
            return {}
        span.set_tag(TRACE_ID, record.trace_id)
        return {"dd.trace_id": f"{span.trace_id:032x}", "dd.span_id": str(span.span_id)}

    return tell
