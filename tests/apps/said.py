"""Values that JSON, protobuf or a database cannot hold, set with MLflow's functions in requests and outside of them.

python -m tests.apps.said EXPERIMENT
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlflow
from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, HTTPScope
from mlflow.entities import SpanEvent
from pydantic import BaseModel

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware
from tests import messages

HALF = "half a fox \ud83e"
NUL = "a\0b"
LONG = "t" * 10_000


def nested(levels: int, leaf: object = 1) -> Any:
    """Lists and objects in turn, so many levels deep."""
    value = leaf
    for level in range(levels):
        value = {"deeper": value} if level % 2 else [value]
    return value


def text_of(levels: int) -> str:
    """Arrays of JSON, so many levels deep, as text."""
    return "[" * levels + "]" * levels


def circle() -> Any:
    found: dict[str, Any] = {"name": "circle"}
    found["itself"] = found
    return found


class Model(BaseModel):
    """What apps give to MLflow instead of a dictionary."""

    question: str
    deep: Any = None


@dataclass
class Point:
    x: int
    inner: Any = None


VALUES: dict[str, Callable[[], Any]] = {
    **{f"nested {levels}": lambda levels=levels: nested(levels) for levels in (20, 24, 25, 27, 33, 34, 100, 400)},
    "nested text 33": lambda: text_of(33),
    "nested text 400": lambda: text_of(400),
    "nested text 3000": lambda: text_of(3000),
    "text in text": lambda: {"body": text_of(200)},
    "half": lambda: {HALF: HALF},
    "half, nested": lambda: nested(40, HALF),
    "half, alone": lambda: HALF,
    "nul": lambda: {NUL: NUL},
    "nul, alone": lambda: NUL,
    "not a number": lambda: {"n": [math.nan, math.inf, -math.inf]},
    "not a number, alone": lambda: math.nan,
    "big": lambda: {"n": 2**70, "m": [-(2**64), 2**63, 2**63 - 1]},
    "big, alone": lambda: 2**70,
    "huge": lambda: {"n": 10**5000},
    "big text": lambda: '{"n": 1180591620717411303424}',
    "keys": lambda: {1: "one", None: "none", True: "true", (1, 2): "pair", 2.5: "half"},
    "bytes": lambda: {"b": b"\x00\xff"},
    "circle": circle,
    "model": lambda: Model(question="?", deep=nested(40)),
    "dataclass": lambda: Point(1, nested(40)),
    "set": lambda: {"one"},
    "empty": lambda: {},
    "long": lambda: LONG,
}
"""What is set as inputs, outputs and attributes of a child span and of the root."""


def root() -> Any:
    found = mlflow.get_current_active_span()
    assert found is not None
    return found


def fill(span: Any, value: Callable[[], Any]) -> None:
    span.set_inputs(value())
    span.set_outputs(value())
    span.set_attribute("said", value())
    span.set_attribute("mlflow.chat.tools", value())


def on_child(value: Callable[[], Any]) -> None:
    with mlflow.start_span("child") as span:
        fill(span, value)


def names() -> None:
    with mlflow.start_span(f"{HALF} {NUL}"):
        pass


def tags() -> None:
    values = {"half": HALF, "nul": NUL, "long": LONG, "k" * 300: "long key", "number": 7, "nothing": None, "deep": nested(40)}
    mlflow.update_current_trace(tags=dict(values), metadata=dict(values))


def previews() -> None:
    mlflow.update_current_trace(request_preview=f"{HALF} {NUL} {LONG}", response_preview=f"{HALF} {NUL} {LONG}")


def events() -> None:
    with mlflow.start_span("child") as span:
        for each in (span, span):
            each.add_event(SpanEvent(f"{HALF} {NUL}", attributes={HALF: HALF, NUL: NUL, "big": 2**70, "n": math.nan, "long": LONG}))
            each.add_event(SpanEvent("lists", attributes={"texts": [HALF, NUL], "big": [2**70, 1], "n": [math.nan, 1.0]}))


def exceptions() -> None:
    with mlflow.start_span("child") as span:
        span.record_exception(ValueError(f"{HALF} {NUL} {LONG}"))
    root().record_exception(ValueError(f"{HALF} {NUL} {LONG}"))


def identity() -> None:
    mlflow.update_current_trace(
        client_request_id="c" * 60 + NUL,
        metadata={"mlflow.trace.session": "s" * 300 + NUL, "mlflow.trace.user": "u" * 300 + NUL},
    )


def sessions() -> None:
    with mlflow.start_span("child") as span:
        span.set_attribute("session.id", "s" * 300)
        span.set_attribute("user.id", "u" * 300)
        span.set_attribute("gen_ai.conversation.id", "c" * 300)


def usage() -> None:
    with mlflow.start_span("child", span_type="CHAT_MODEL") as span:
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 2**70, "output_tokens": math.nan, "total_tokens": "x"})
        span.set_attribute("mlflow.llm.cost", {"total_cost": math.nan})
        span.set_attribute("mlflow.llm.model", NUL + LONG)


def feedback() -> None:
    trace_id = root().trace_id
    for name, value in (("deep", nested(40)), ("big", 2**70), ("nan", math.nan), ("half", HALF), ("nul", NUL)):
        mlflow.log_feedback(trace_id=trace_id, name=name, value=value, rationale=f"{HALF} {NUL}")
        mlflow.log_expectation(trace_id=trace_id, name=name, value=value)


OTHERS: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (names, tags, previews, events, exceptions, identity, sessions, usage, feedback)
}

WAYS: dict[str, Callable[[], None]] = {
    **{f"child {name}": lambda value=value: on_child(value) for name, value in VALUES.items()},
    **{f"root {name}": lambda value=value: fill(root(), value) for name, value in VALUES.items()},
    **OTHERS,
}


async def app(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await receive()
    try:
        WAYS[scope["path"][1:]]()
    except Exception as error:
        print("RAISED", scope["path"], type(error), str(error)[:100], file=sys.stderr)
    await send(messages.start(200, (b"content-type", b"text/plain")))
    await send(messages.body(b"done"))


async def ask(traced: TraceMiddleware, way: str) -> None:
    scope = messages.http(f"/{way}", (b"x-request-id", way.replace(" ", "-").replace(",", "").encode()))

    async def receive() -> ASGIReceiveEvent:
        return messages.request()

    async def send(message: ASGISendEvent) -> None:
        pass

    await traced(scope, receive, send)


def by_itself(way: str) -> None:
    """The same in a trace that the app opens itself."""
    with mlflow.start_span(f"own {way}"):
        try:
            WAYS[way]()
        except Exception as error:
            print("RAISED own", way, type(error), str(error)[:100], file=sys.stderr)


async def main(experiment: str) -> None:
    os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment
    traced = TraceMiddleware(app)
    for way in WAYS:
        await ask(traced, way)
        by_itself(way)
    assert delivery.flush(120), delivery.stats()
    print(delivery.stats())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
