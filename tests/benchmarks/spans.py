"""The child spans of a chat request, as an autologger opens them: a retriever's and a chat model's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

QUESTION = "What is MLflow good for in production? " * 3
DOCUMENTS = [{"page_content": f"MLflow traces GenAI apps in production, part {part}. " * 4} for part in range(3)]
CONTENT = "MLflow is a platform for GenAI apps. " * 5
COMPLETION = {
    "id": "chatcmpl-1",
    "model": "gpt-5",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": CONTENT}}],
    "usage": {"prompt_tokens": 31, "completion_tokens": 45, "total_tokens": 76},
}

Body = dict[str, Any]
Children = Callable[[Body], None]

KINDS = {"none": 0, "one": 1, "two": 2}
"""Kind of request -> its child spans; ``one`` has only the chat model's."""

FAILING_IMPORTS = ("mlflow.agent", "mlflow.agent.hint", "mlflow.pyfunc", "mlflow.pyfunc.context")
"""Modules that the slim package tries to import for each root span, and does not have."""


def no_children(body: Body) -> None:
    """Open no span."""


def mlflow_children(count: int) -> Children:
    """Open them by MLflow's own API."""
    if not count:
        return no_children
    import mlflow
    from mlflow.entities import SpanType

    def open_them(body: Body) -> None:
        if count > 1:
            with mlflow.start_span("retrieve", span_type=SpanType.RETRIEVER) as span:
                span.set_inputs({"query": QUESTION})
                span.set_outputs(DOCUMENTS)
        with mlflow.start_span("chat", span_type=SpanType.CHAT_MODEL) as span:
            span.set_inputs(body)
            span.set_outputs(COMPLETION)

    return open_them


def otel_children(count: int) -> Children:
    """Open them on OpenTelemetry's tracer, with the attributes of its conventions for generative AI.

    https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
    """
    if not count:
        return no_children
    from opentelemetry import trace

    tracer = trace.get_tracer("chat")

    def open_them(body: Body) -> None:
        if count > 1:
            with tracer.start_as_current_span("retrieve") as span:
                span.set_attribute("gen_ai.operation.name", "retrieval")
                span.set_attribute("gen_ai.retrieval.query.text", QUESTION)
                span.set_attribute("gen_ai.retrieval.documents", json.dumps(DOCUMENTS))
        with tracer.start_as_current_span("chat") as span:
            span.set_attribute("gen_ai.operation.name", "chat")
            span.set_attribute("gen_ai.input.messages", json.dumps(body["messages"]))
            span.set_attribute("gen_ai.output.messages", json.dumps(COMPLETION["choices"]))

    return open_them


def export_to_nowhere() -> None:
    """Make MLflow drop each ended span, which leaves the cost of the calls that open and end it.

    The baseline is meant to be low: imports that fail again for each root span of the slim package fail at once.
    ``MLFLOW_ENABLE_ASYNC_TRACE_LOGGING=false`` in the environment keeps MLflow from starting a thread for it.
    """
    import mlflow
    from mlflow.entities.trace_location import MlflowExperimentLocation
    from mlflow.tracing.export.mlflow_v3 import MlflowV3SpanExporter
    from mlflow.tracing.trace_manager import InMemoryTraceManager

    def drop(self: object, spans: Sequence[Any]) -> None:
        for span in spans:
            if span.parent is None:
                InMemoryTraceManager.get_instance().pop_trace(span.context.trace_id)

    MlflowV3SpanExporter.export = drop
    for name in FAILING_IMPORTS:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    mlflow.tracing.set_destination(MlflowExperimentLocation("0"))
