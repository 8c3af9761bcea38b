"""One trace with a child span, taken the whole way to nowhere when the bridge is loaded.

It meets what a list of names cannot show: an argument that is no longer taken, a value of another type.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mlflow.tracing import provider
from mlflow.tracing.fluent import _set_last_active_trace_id
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import set_span_in_context

from mlflow_middleware.mlflow_bridge.ids import CountingIds, Ids
from mlflow_middleware.mlflow_bridge.plain_root import PlainRoot, Source
from mlflow_middleware.mlflow_bridge.processor import SCOPE, Processor
from mlflow_middleware.mlflow_bridge.root_span import Contents, Description, Unread, Written


def run() -> None:
    """Take two requests the whole way: one that asks for nothing, and one that fails with a child span inside.

    Raises:
        Exception: The installed MLflow is not as it is known here.
    """
    if list(inspect.signature(provider._get_mlflow_span_processor).parameters) != ["tracking_uri"]:
        raise TypeError("MLflow builds its span processors in another way")
    finished: list[Any] = []
    ids = CountingIds()
    processor = Processor("http://localhost", finished.append, None)
    tracer_provider = TracerProvider(
        sampler=ALWAYS_ON, resource=Resource.get_empty(), shutdown_on_exit=False, id_generator=Ids(ids)
    )
    tracer_provider.add_span_processor(processor)
    tracer = tracer_provider.get_tracer(SCOPE)
    source = Source(tracer_provider, tracer, processor, InMemoryTraceManager.get_instance()._lock, ids)
    try:
        for has_child in (False, True):
            _request(source, has_child)
        sent = [trace.content("0") for trace in finished]
    finally:
        _set_last_active_trace_id(None)
    if [bool(trace.otlp and trace.info) for trace in sent] != [True, True]:
        raise TypeError("a trace that was tried was not exported")


def _request(source: Source, has_child: bool) -> None:
    root = PlainRoot.open(source, "trial", _describe)
    if root is None:
        raise TypeError("a trace that was tried was not sampled")
    if has_child:
        made = root.made()
        context = set_span_in_context(made.otel, Context())
        child = source.tracer.start_span("child", context=context)
        root.fail(ValueError("tried"))
        child.end()
    root.update_trace({"tried": "yes"})
    root.end()


def _describe(metadata: Mapping[str, str]) -> Description:
    def read() -> Contents:
        return Contents(Written('{"a": 1}', "a"), Written('"b"', "b"), None, {})

    return Description({"url.path": "/"}, {"a": "b"}, {"c": "d"}, "id", unread=Unread(read, 0))
