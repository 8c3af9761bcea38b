"""Makes a trace of each kind that MLflow's API can make, in the experiment given first.

The second argument is ``ours`` for our delivery; with any other, this package is not even imported.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime, timezone
from typing import Any

import mlflow
from mlflow.entities import AssessmentSource, Feedback, SpanEvent, SpanType
from mlflow.entities.model_registry import PromptVersion
from mlflow.tracing.attachments import Attachment
from mlflow.tracing.provider import provider
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.trace import SpanKind

from tests.apps.known import HAS_LINKS, identity, taken

LONG = "a long text, with umlauts äöü, 日本語 and 🦊; " * 2000
USAGE = {"input_tokens": 120, "output_tokens": 30, "total_tokens": 150}
COST = {"input_cost": 0.00012, "output_cost": 0.00009, "total_cost": 0.00021}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is MLflow? " * 100}]
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
PDF = b"%PDF-1.7 of the tests"


def nested() -> None:
    """Spans of several types, three levels deep, with token usage and cost on those that call a model."""
    with mlflow.start_span("nested", span_type=SpanType.CHAIN) as root:
        root.set_inputs({"messages": MESSAGES, "temperature": 0.5})
        with mlflow.start_span("retrieve", span_type=SpanType.RETRIEVER) as span:
            span.set_outputs([{"page_content": LONG, "metadata": {"doc_uri": "s3://docs/1"}}])
            with mlflow.start_span("embed", span_type=SpanType.EMBEDDING) as inner:
                inner.set_attribute(
                    "mlflow.chat.tokenUsage", {"input_tokens": 7, "output_tokens": 0, "total_tokens": 7}
                )
        for name in ("first answer", "second answer"):
            with mlflow.start_span(name, span_type=SpanType.CHAT_MODEL) as span:
                span.set_inputs({"model": "gpt-5", "messages": MESSAGES})
                span.set_attribute("mlflow.chat.tokenUsage", USAGE)
                span.set_attribute("mlflow.llm.cost", COST)
                span.set_attribute("mlflow.llm.model", "gpt-5")
                span.set_outputs({"choices": [{"message": {"role": "assistant", "content": "A platform."}}]})
        root.set_outputs({"choices": [{"message": {"role": "assistant", "content": "A platform. " * 200}}]})


def values() -> None:
    """Attributes, inputs and outputs of every kind of value."""
    attributes = {
        "text": "plain",
        "quoted": '"in quotes"',
        "number": 7,
        "float": 0.1,
        "not a number": math.nan,
        "truth": True,
        "none": None,
        "list": [1, "two", None, [3.0]],
        "mapping": {"inner": {"text": "ä", "list": []}},
        "empty": "",
        "long": LONG,
        "key with spaces": "日本語",
        "at": datetime(2026, 11, 23, tzinfo=timezone.utc),
        "bytes": b"\x00\xff",
        "set": {"one"},
    }
    with mlflow.start_span("values", attributes=dict(attributes)) as span:
        span.set_inputs(LONG)
        span.set_outputs(attributes)


def failing() -> None:
    """An exception in a child that ends the root, too."""

    @mlflow.trace(span_type=SpanType.TOOL)
    def tool(question: str) -> str:
        raise ValueError(f"no answer to {question} 🦊")

    with contextlib.suppress(ValueError), mlflow.start_span("failing"):
        tool("why?")


def caught() -> None:
    """Exceptions and a status that the app recorded itself."""
    with mlflow.start_span("caught") as root:
        with mlflow.start_span("inner") as span:
            span.record_exception(RuntimeError("first"))
            span.record_exception("second, a text")
            span.set_status("ERROR")
        root.set_status("OK")


def events() -> None:
    """Span events with attributes."""
    with mlflow.start_span("events") as span:
        span.add_event(SpanEvent("token", attributes={"text": "ä", "index": 1, "score": 0.5, "last": False}))
        span.add_event(SpanEvent("tokens", attributes={"texts": ["a", "b"], "indexes": [1, 2]}))
        span.add_event(SpanEvent("bare"))


def links() -> None:
    """A link to a span of another trace and one to a span of the same trace."""
    with mlflow.start_span("linked") as other:
        pass
    to_other = mlflow.entities.Link(other.trace_id, other.span_id, {"why": "follows", "hops": 2})
    at_start = taken(mlflow.start_span, links=[to_other])  # since MLflow 3.15
    with mlflow.start_span("links", **at_start) as root, mlflow.start_span("inner") as inner:
        inner.add_link(mlflow.entities.Link(root.trace_id, root.span_id))
        if not at_start:
            root.add_link(to_other)


def annotated() -> None:
    """All calls that change a trace while it runs."""
    with mlflow.start_span("annotated") as span:
        span.set_inputs({"question": LONG})
        mlflow.update_current_trace(
            client_request_id="request-1",
            tags={"plan": "pro", "umlaut": "äöü", "long": "t" * 4000},
            request_preview="asks something",
            response_preview="gets something",
            **identity(session_id="s-1", user="jane", kb="2026-11", long="m" * 200),
        )
        span.set_outputs({"answer": LONG})


def overridden() -> None:
    """A state that differs from the root span's status."""
    with mlflow.start_span("overridden"):
        mlflow.update_current_trace(state="ERROR")


def in_context() -> None:
    """Tags and metadata declared around a trace, and a block in which nothing is traced."""
    with mlflow.tracing.context(tags={"team": "search"}, metadata={"origin": "batch"}), mlflow.start_span("in context"):
        pass
    with mlflow.tracing.context(enabled=False), mlflow.start_span("silenced"), mlflow.start_span("silenced too"):
        pass


def without_context() -> None:
    """Spans with explicit parents and times."""
    root = mlflow.start_span_no_context(
        "without context",
        span_type=SpanType.AGENT,
        inputs={"question": 1},
        attributes={"kind": "manual"},
        tags={"by": "hand"},
        metadata={"run": "7"},
        start_time_ns=1_700_000_000_000_000_000,
    )
    child = mlflow.start_span_no_context("child", parent_span=root, start_time_ns=1_700_000_000_100_000_000)
    child.end(outputs=["done"], end_time_ns=1_700_000_000_200_000_000)
    root.end(outputs={"answer": 2}, status="ERROR", end_time_ns=1_700_000_001_000_000_000)


def decorated() -> None:
    """Functions of all kinds under the decorator."""

    @mlflow.trace
    def plain(x: int, *rest: int, flag: bool = False) -> int:
        return x

    @mlflow.trace(name="renamed", attributes={"version": 3})
    async def coroutine(x: int) -> int:
        await asyncio.sleep(0)
        return int(plain(x, 2, 3, flag=True))

    @mlflow.trace(output_reducer="".join)
    def generator() -> Iterator[str]:
        yield from ("a", "b", "c")

    @mlflow.trace
    async def async_generator() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def consume() -> list[int]:
        return [number async for number in async_generator()]

    asyncio.run(coroutine(1))
    list(generator())
    asyncio.run(consume())


def threaded() -> None:
    """Children in other threads."""

    def work(number: int) -> None:
        with mlflow.start_span(f"worker {number}"):
            pass

    with mlflow.start_span("threaded"), ThreadPoolExecutor(1) as pool:
        for number in (1, 2):
            pool.submit(copy_context().run, work, number).result()


def assessed() -> None:
    """Feedback and an expectation that are added while the trace runs."""
    with mlflow.start_span("assessed") as span:
        source = AssessmentSource(source_type="HUMAN", source_id="jane")
        mlflow.log_feedback(trace_id=span.trace_id, name="right", value=True, source=source, rationale="ä")
        mlflow.log_assessment(trace_id=span.trace_id, assessment=Feedback(name="score", value=0.5, metadata={"k": "v"}))
        mlflow.log_expectation(trace_id=span.trace_id, name="expected", value={"answer": [1]}, source=source)


def with_a_prompt() -> None:
    """A trace that used a version of a prompt, like ``mlflow.genai.load_prompt``, which only full MLflow has."""
    with mlflow.start_span("with a prompt") as span:
        prompt = PromptVersion(sys.argv[1], 1, "Answer {{question}}")
        InMemoryTraceManager.get_instance().register_prompt(span.trace_id, prompt)


def of_opentelemetry() -> None:
    """Spans that were opened by OpenTelemetry's own API, in MLflow's provider."""
    bridged = getattr(mlflow.tracing, "get_bridged_tracer_provider", None)  # since MLflow 3.15
    tracer = bridged().get_tracer("a library") if bridged else provider.get_or_init_tracer("a library")
    with tracer.start_as_current_span("of opentelemetry", kind=SpanKind.CLIENT) as span:
        span.set_attribute("gen_ai.request.model", "gpt-5")
        span.set_attribute("gen_ai.usage.input_tokens", 3)
        span.set_attribute("gen_ai.usage.output_tokens", 4)
        span.set_attribute("list", ["a", "b"])
        span.add_event("seen", {"by": "otel"})


def described() -> None:
    """A description, a log level, and a span without anything."""
    with mlflow.start_span("described", **taken(mlflow.start_span, description="What it does.", log_level="WARNING")):
        pass


def with_attachments() -> None:
    """Files in inputs and outputs: explicit ones, and base64 text as in chats with images."""
    image = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": image}}]
    with mlflow.start_span("with attachments"), mlflow.start_span("inner") as inner:
        inner.set_inputs({"messages": [{"role": "user", "content": content}]})
        inner.set_outputs({"report": Attachment(content_type="application/pdf", content_bytes=PDF)})


def processed() -> None:
    """Spans that a processor of the app rewrites at their end."""

    def redact(span: Any) -> None:
        if span.inputs:
            span.set_inputs("redacted")

    mlflow.tracing.configure(span_processors=[redact])
    with mlflow.start_span("processed") as span:
        span.set_inputs({"password": "1234"})
    mlflow.tracing.configure(span_processors=[])


KINDS: list[Callable[[], None]] = [
    *(nested, values, failing, caught, events, annotated, overridden, in_context, without_context, decorated),
    *((links,) if HAS_LINKS else ()),
    *(threaded, assessed, with_a_prompt, of_opentelemetry, described, with_attachments, processed),
]


def main() -> None:
    if sys.argv[2] == "ours":
        from mlflow_middleware import delivery
        from mlflow_middleware.settings import Settings

        delivery.start(Settings.load())
    mlflow.set_experiment(sys.argv[1])
    for kind in KINDS:
        kind()
    mlflow.flush_trace_async_logging()


if __name__ == "__main__":
    main()
