"""Other tracing tools in the process: the middleware and each tool record each other's trace ids.

This module imports none of them. The first request looks for those that the app has imported; if there are none, later
requests do not look again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.request.activation import current_request
from mlflow_middleware.trace.record import TraceRecord

TRACE_ID = "mlflow.trace_id"
"""The name of our trace id in the other tools: an attribute in OpenTelemetry, a tag in Sentry and Datadog."""

Tool = Callable[[TraceRecord], Mapping[str, str]]
"""Sets our trace id in a tool that traces this request, and returns attributes with the tool's ids."""

are_there = True
"""Whether there are any tools; true until the first request has looked."""

_tools: tuple[Tool, ...] | None = None


@guarded
def meet(record: TraceRecord) -> None:
    """Exchange trace ids with the tools that trace a request: outer ones at its start, inner ones at its response."""
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
    """Return the exchange with an OpenTelemetry SDK that the app has set up. MLflow's spans use another provider."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    sdk: Any = sys.modules.get("opentelemetry.sdk.trace")
    provider = trace.get_tracer_provider() if trace and sdk else None
    if provider is None or isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    if hasattr(provider, "add_span_processor"):
        provider.add_span_processor(_stamp(sdk.SpanProcessor))

    def exchange_ids(record: TraceRecord) -> Mapping[str, str]:
        return _stamped(record, trace.get_current_span())

    return exchange_ids


def _stamp(base: type[Any]) -> Any:
    """Return a processor for spans that start inside a request as the first of their trace in this process."""

    class Stamp(base):  # type: ignore[misc]
        """Span processor that sets our trace id."""

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            """Set our trace id on a span."""
            request = current_request.get()
            if request and request.trace_id and (span.parent is None or span.parent.is_remote):
                request.record.others = {**_stamped(request.record, span), **request.record.others}

    return Stamp()


def _stamped(record: TraceRecord, span: Any) -> Mapping[str, str]:
    ids = span.get_span_context()
    if not ids.is_valid or ids.trace_id == record.ids.trace_id:  # not a real span, or part of our own trace
        return {}
    if span.is_recording():
        span.set_attribute(TRACE_ID, record.trace_id)
    return {"otel.trace_id": f"{ids.trace_id:032x}", "otel.span_id": f"{ids.span_id:016x}"}


def _sentry() -> Tool | None:
    sentry: Any = sys.modules.get("sentry_sdk")
    if sentry is None:
        return None

    def exchange_ids(record: TraceRecord) -> Mapping[str, str]:
        scope = sentry.get_current_scope()
        if not sentry.get_client().is_active() or scope.transaction is None:  # else process-wide
            return {}
        sentry.get_isolation_scope().set_tag(TRACE_ID, record.trace_id)
        scope.transaction.set_tag(TRACE_ID, record.trace_id)
        ids = scope.get_trace_context()
        return {"sentry.trace_id": str(ids["trace_id"]), "sentry.span_id": str(ids["span_id"])}

    return exchange_ids


def _datadog() -> Tool | None:
    tracer: Any = getattr(sys.modules.get("ddtrace.trace"), "tracer", None)
    tracer = tracer or getattr(sys.modules.get("ddtrace"), "tracer", None)
    if tracer is None:
        return None

    def exchange_ids(record: TraceRecord) -> Mapping[str, str]:
        span = tracer.current_root_span()
        if span is None:
            return {}
        span.set_tag(TRACE_ID, record.trace_id)
        return {"dd.trace_id": f"{span.trace_id:032x}", "dd.span_id": str(span.span_id)}

    return exchange_ids
