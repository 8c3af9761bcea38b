"""Child spans of a request whose own span the app never gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack, suppress

import mlflow
import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlflow_middleware._internal import guard
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.mlflow_bridge import registry, root
from tests.messages import body, http, start
from tests.unit.encoded import Sent, attributes_of, sent_traces

USAGE = "mlflow.chat.tokenUsage"


def trace_of(
    handler: Callable[[], object], afterwards: Callable[[], object] = lambda: None, *, at_once: bool = False
) -> list[Sent]:
    """Return the last encoding of a request's trace.

    Args:
        handler: A function that the app calls before it answers.
        afterwards: A function that it calls when its answer is complete.
        at_once: Whether to send the trace as soon as the answer is complete, not only when all work is over.
    """

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        handler()
        await send(start())
        await send(body(b"answered"))
        afterwards()

    async def ask() -> None:
        async def nothing(*message: object) -> None:
            pass

        with suppress(ValueError):
            await TraceMiddleware(app)(http(), nothing, nothing)

    before = guard.failures.copy()
    with sent_traces(at_once=at_once) as sent:
        asyncio.run(ask())
    assert guard.failures == before
    manager = InMemoryTraceManager.get_instance()
    assert (dict(registry.in_flight), len(manager._traces), len(manager._otel_id_to_mlflow_trace_id)) == ({}, 0, 0)
    return sent


def children(sent: Sent) -> dict[str, Span]:
    """Return the spans below the root, by name; each is its child."""
    root, *others = sent.spans
    assert {span.parent_span_id for span in others} <= {root.span_id}
    assert {span.trace_id for span in others} <= {root.trace_id}
    return {span.name: span for span in others}


def child(name: str = "child", **attributes: object) -> None:
    with mlflow.start_span(name, attributes=attributes or None):
        pass


def test_a_child_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MLflow object is made of the request's own span: that is most of the cost of the first child."""
    monkeypatch.setattr(root.Root, "materialize", None)

    (sent,) = trace_of(child)

    assert list(children(sent)) == ["child"]
    assert attributes_of(sent.root)["mlflow.spanOutputs"] == "answered"
    assert json.loads(sent.trace_info["trace_metadata"]["mlflow.trace.sizeStats"])["num_spans"] == 2


def test_the_usage_of_children_is_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the trace; the root has no usage of its own then."""
    monkeypatch.setattr(root.Root, "materialize", None)

    def calls() -> None:
        for tokens in (3, 4):
            used = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}
            child(f"call {tokens}", **{USAGE: used})

    (sent,) = trace_of(calls)

    assert json.loads(sent.trace_info["trace_metadata"]["mlflow.trace.tokenUsage"]) == {
        "input_tokens": 7,
        "output_tokens": 2,
        "total_tokens": 9,
    }
    assert USAGE not in attributes_of(sent.root)


@pytest.mark.parametrize(
    "reported",
    [
        {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4},
        {"gen_ai.usage.prompt_tokens": 3, "gen_ai.usage.completion_tokens": 4},
        {"llm.token_count.prompt": 3, "llm.token_count.completion": 4},
    ],
)
def test_usage_in_another_tools_attributes_is_not_counted_twice(reported: dict[str, int]) -> None:
    """OpenTelemetry's, Traceloop's, OpenInference's: a server reads them like MLflow's own."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        child("call", **reported)
        await send(start(200, (b"content-type", b"application/json")))
        await send(body(b'{"model": "gpt-4o", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'))

    async def nothing(*message: object) -> None:
        pass

    with sent_traces() as sent:
        asyncio.run(TraceMiddleware(app)(http(), nothing, nothing))

    (trace,) = sent
    attributes = attributes_of(trace.root)
    assert not [key for key in attributes if "usage" in key.lower()]
    assert attributes["mlflow.llm.model"] == "gpt-4o"
    assert "mlflow.trace.tokenUsage" not in trace.trace_info["trace_metadata"]


def test_a_child_gets_the_trace() -> None:
    """From inside, and for a span that is not its own: it finds the request's."""

    def asks() -> None:
        child("first")
        with mlflow.start_span("second") as span:
            mlflow.update_current_trace(tags={"asked": "yes"})
            manager = InMemoryTraceManager.get_instance()
            root_id = manager.get_root_span_id(span.trace_id)
            with manager.get_trace(span.trace_id) as trace:
                assert trace is not None
                assert len(trace.span_dict) == 3
                assert root_id in trace.span_dict
                assert root_id == span.parent_id
        child("third")

    (sent,) = trace_of(asks)

    assert list(children(sent)) == ["first", "second", "third"]
    assert sent.trace_info["tags"]["asked"] == "yes"


def test_a_child_that_outlives_the_request() -> None:
    """It is sent when it has ended."""
    stack = ExitStack()

    def begin() -> None:
        child("in time")
        stack.enter_context(mlflow.start_span("late"))

    first, *_, last = trace_of(begin, stack.close, at_once=True)

    assert (set(children(first)), set(children(last))) == ({"in time"}, {"late", "in time"})


def test_children_before_and_after_the_answer() -> None:
    """All of them are there."""
    sent = trace_of(lambda: child("before"), lambda: child("after"))

    assert set(children(sent[-1])) == {"before", "after"}


def test_an_exception_with_children() -> None:
    """It is recorded on the request's own span, which has its children all the same."""

    def fail() -> None:
        child()
        raise ValueError("no")

    (sent,) = trace_of(fail)

    assert list(children(sent)) == ["child"]
    assert [event.name for event in sent.root.events] == ["exception"]
    assert sent.trace_info["state"] == "ERROR"
