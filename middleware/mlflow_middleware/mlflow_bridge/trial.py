"""A trial run of two traces, never sent, when the bridge is loaded.

It detects problems that a list of names cannot show: a removed argument, or a value of another type.
"""

from __future__ import annotations

import contextvars
import inspect
from typing import Any

import mlflow
from mlflow.tracing import provider, trace_manager
from mlflow.tracing.config import get_config
from mlflow.tracing.fluent import _set_last_active_trace_id
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import set_span_in_context

from mlflow_middleware.capture.body import Body
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.mlflow_bridge import context, registry
from mlflow_middleware.mlflow_bridge.ids import CountingIds, Ids
from mlflow_middleware.mlflow_bridge.opening import begin
from mlflow_middleware.mlflow_bridge.processor import SCOPE, Processor
from mlflow_middleware.mlflow_bridge.root import Source
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace.record import TraceRecord


def run() -> None:
    """Trace two requests completely: one without any access to its span, and one that fails with a child span inside.

    Raises:
        Exception: The installed MLflow is incompatible.
    """
    _check_signatures()
    last = mlflow.get_last_active_trace_id()
    config = get_config()
    of_app, config.span_processors = config.span_processors, []  # they must not see the trial
    ids = CountingIds()
    try:
        contextvars.copy_context().run(_take_requests, ids)  # a failure leaves no span current
    finally:
        for number in range(1, ids.last + 1):  # the remains of a failure
            registry.in_flight.pop(number, None)
            registry.unregister(f"tr-{number:032x}", number)
        config.span_processors = of_app
        _set_last_active_trace_id(last)


def _check_signatures() -> None:
    """Check the signatures of functions that the trial does not call."""
    if list(inspect.signature(provider._get_mlflow_span_processor).parameters) != ["tracking_uri"]:
        raise TypeError("MLflow builds its span processors in another way")
    inspect.signature(provider._get_tracer).bind("name")
    inspect.signature(_set_last_active_trace_id).bind("trace id")
    wrapper = provider.provider
    for function in (wrapper.get, wrapper.reset, provider.is_tracing_enabled, provider.get_current_context):
        inspect.signature(function).bind()
    inspect.signature(trace_manager.get_trace_cache_with_timeout).bind()


def _take_requests(ids: CountingIds) -> None:
    finished: list[Any] = []
    processor = Processor("http://localhost", finished.append, None, exports_metrics=False)
    tracer_provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource.get_empty(),
        shutdown_on_exit=False,
        id_generator=Ids(ids),
        span_limits=SpanLimits(max_span_attributes=128),
    )
    tracer_provider.add_span_processor(processor)
    tracer = tracer_provider.get_tracer(SCOPE)
    source = Source(tracer_provider, tracer, processor, True, InMemoryTraceManager.get_instance()._lock, ids)
    for has_child in (False, True):
        _request(source, has_child)
    sent = [trace.content("0") for trace in finished]
    if [bool(trace.otlp and trace.info) for trace in sent] != [True, True]:
        raise TypeError("a trial trace was not exported")


def _request(source: Source, has_child: bool) -> None:
    exchange = Exchange("POST", "/", {"x-session-id": "s", "content-type": "application/json"})
    record = TraceRecord(exchange, Settings.model_construct())
    exchange.request_body, exchange.response_body = Body(100), Body(100)
    exchange.request_body.add(b'{"a": 1}')
    root = begin(source, record)
    if root is None:
        raise TypeError("a trial trace was not sampled")
    context.silence()()
    left = context.leave(root.attach())
    entered = context.resume(left)
    if context.current_span() is None:
        raise TypeError("a trial span was not current")
    context.leave(entered)
    if has_child:
        objects = root.materialize()
        child = source.tracer.start_span("child", context=set_span_in_context(objects.otel, Context()))
        child.end()
        record.fail(ValueError("tried"))
    record.annotate({"tried": "yes"}, {})
    record.is_complete = True
    root.end()
