"""One trace with a child span, taken the whole way to nowhere when the bridge is loaded.

It meets what a list of names cannot show: an argument that is no longer taken, a value of another type.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
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

from mlflow_middleware.mlflow_bridge import context, plain_root
from mlflow_middleware.mlflow_bridge.ids import CountingIds, Ids
from mlflow_middleware.mlflow_bridge.mlflow_root import discard
from mlflow_middleware.mlflow_bridge.plain_root import PlainRoot, Source
from mlflow_middleware.mlflow_bridge.processor import SCOPE, Processor
from mlflow_middleware.mlflow_bridge.root_span import Contents, Description, Unread, Written


def run() -> None:
    """Take two requests the whole way: one that asks for nothing, and one that fails with a child span inside.

    Raises:
        Exception: The installed MLflow is not as it is known here.
    """
    _check_signatures()
    last = mlflow.get_last_active_trace_id()
    config = get_config()
    of_app, config.span_processors = config.span_processors, []  # they are not to see what is tried
    ids = CountingIds()
    try:
        _take_requests(ids)
    finally:
        for number in range(1, ids.last + 1):  # what a failure may have left
            plain_root.in_flight.pop(number, None)
            discard(f"tr-{number:032x}", number)
        config.span_processors = of_app
        _set_last_active_trace_id(last)


def _check_signatures() -> None:
    """See whether functions that are not called here are called elsewhere as they want to be."""
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
    source = Source(tracer_provider, tracer, processor, InMemoryTraceManager.get_instance()._lock, ids)
    for has_child in (False, True):
        _request(source, has_child)
    sent = [trace.content("0") for trace in finished]
    if [bool(trace.otlp and trace.info) for trace in sent] != [True, True]:
        raise TypeError("a trace that was tried was not exported")


def _request(source: Source, has_child: bool) -> None:
    root = PlainRoot.open(source, "trial", _describe)
    if root is None:
        raise TypeError("a trace that was tried was not sampled")
    context.silence()()
    left = context.leave(root.attach())
    entered = context.resume(left)
    if context.current_span() is None:
        raise TypeError("a span that was tried was not current")
    context.leave(entered)
    if has_child:
        made = root.made()
        child = source.tracer.start_span("child", context=set_span_in_context(made.otel, Context()))
        root.fail(ValueError("tried"))
        child.end()
    root.update_trace({"tried": "yes"})
    root.end()


def _describe(metadata: Mapping[str, str]) -> Description:
    def read() -> Contents:
        return Contents(Written('{"a": 1}', "a"), Written('"b"', "b"), None, {})

    return Description({"url.path": "/"}, {"a": "b"}, {"c": "d"}, "id", unread=Unread(read, 0))
