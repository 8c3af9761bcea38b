"""Values, given to MLflow's functions, that JSON, protobuf or a database cannot hold, inside and outside of requests.

python -m tests.apps.odd_values EXPERIMENT
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlflow
from mlflow.entities import SpanEvent
from pydantic import BaseModel

from mlflow_middleware import delivery
from tests.apps.ways import active_span, asked, traced

HALF = "half a fox \ud83e"
"""Ends with half a surrogate pair, which a client's JSON may contain, or a truncated stream end in."""

NUL = "a\0b"
LONG = "t" * 10_000


def nested(levels: int, leaf: object = 1) -> Any:
    """Nest lists and objects alternately, this many levels deep."""
    value = leaf
    for level in range(levels):
        value = {"deeper": value} if level % 2 else [value]
    return value


def arrays(levels: int) -> str:
    """Return nested JSON arrays as text, this many levels deep."""
    return "[" * levels + "]" * levels


class Model(BaseModel):
    """A Pydantic model, which apps pass to MLflow instead of a dictionary."""

    question: str
    deep: Any = None


@dataclass
class Point:
    """A dataclass, which apps pass to MLflow as well."""

    x: int
    inner: Any = None


VALUES: dict[str, Any] = {
    **{f"nested {levels}": nested(levels) for levels in (20, 26, 27, 30, 31, 33, 34, 100, 400)},
    **{f"arrays {levels}": arrays(levels) for levels in (33, 400, 3000)},
    "text in text": {"body": arrays(200)},
    "half": {HALF: HALF},
    "half, nested": nested(40, HALF),
    "half, alone": HALF,
    "nul": {NUL: NUL},
    "nul, alone": NUL,
    "not a number": {"n": [math.nan, math.inf, -math.inf]},
    "big": {"n": 2**70, "m": [-(2**64), 2**63, 2**63 - 1]},
    "big, alone": 2**70,
    "big text": '{"n": 1180591620717411303424}',
    "digits": "1" * 5000,
    "bytes": {"b": b"\x00\xff"},
    "model": Model(question="?", deep=nested(40)),
    "dataclass": Point(1, nested(40)),
    "long": LONG,
}
"""Values set as inputs, outputs and attributes of a child span and of the root."""


def fill(span: Any, value: Any) -> None:
    span.set_inputs(value)
    span.set_outputs(value)
    span.set_attribute("odd", value)


def on_root(value: Any) -> None:
    fill(active_span(), value)


def on_child(value: Any) -> None:
    with mlflow.start_span("child") as span:
        fill(span, value)


def name() -> None:
    with mlflow.start_span(f"{HALF} {NUL}"):
        pass


def tags() -> None:
    odd = {"half": HALF, "nul": NUL, "long": LONG, "k" * 300: "long key", "number": 7, "deep": nested(40)}
    mlflow.update_current_trace(tags=dict(odd), metadata=dict(odd))


def previews() -> None:
    mlflow.update_current_trace(request_preview=f"{HALF} {NUL} {LONG}", response_preview=f"{HALF} {NUL} {LONG}")


def events() -> None:
    with mlflow.start_span("child") as span:
        odd = {HALF: HALF, "nul": NUL, "big": 2**70, "not a number": math.nan, "long": LONG}
        span.add_event(SpanEvent(f"{HALF} event", attributes=dict(odd)))
        span.add_event(SpanEvent("lists", attributes={"texts": [HALF, NUL], "big": [2**70, 1]}))


def exceptions() -> None:
    with mlflow.start_span("child") as span:
        span.record_exception(ValueError(f"{HALF} {NUL} {LONG}"))
    active_span().record_exception(ValueError(f"{HALF} {NUL} {LONG}"))


def identity() -> None:
    mlflow.update_current_trace(
        client_request_id="identity",
        metadata={"mlflow.trace.session": "s" * 300 + NUL, "mlflow.trace.user": "u" * 300 + NUL},
    )


def session() -> None:
    for span in (active_span(), mlflow.start_span_no_context("child", parent_span=active_span())):
        span.set_attributes({"session.id": "s" * 300, "gen_ai.conversation.id": "c" * 300})
        if span.name == "child":
            span.end()


def usage() -> None:
    with mlflow.start_span("child", span_type="CHAT_MODEL") as span:
        used = {"input_tokens": 2**70, "output_tokens": math.nan, "total_tokens": "x"}
        span.set_attribute("mlflow.chat.tokenUsage", used)
        span.set_attribute("mlflow.llm.cost", {"total_cost": math.nan})


def feedback() -> None:
    trace_id = active_span().trace_id
    for key, value in (("deep", nested(40)), ("big", 2**70), ("nan", math.nan), ("half", HALF), ("nul", NUL)):
        mlflow.log_feedback(trace_id=trace_id, name=key, value=value, rationale=f"{HALF} {NUL}")
        mlflow.log_expectation(trace_id=trace_id, name=key, value=value, metadata={"odd": f"{HALF} {NUL}"})


OTHERS = (name, tags, previews, events, exceptions, identity, session, usage, feedback)

WAYS: dict[str, Callable[[], None]] = {
    **{f"child {key}": partial(on_child, value) for key, value in VALUES.items()},
    **{f"root {key}": partial(on_root, value) for key, value in VALUES.items()},
    **{each.__name__: each for each in OTHERS},
}


async def main(experiment: str) -> None:
    middleware = traced(experiment, lambda way: WAYS[way]())
    for way, say in WAYS.items():
        await asked(middleware, way)
        with mlflow.start_span("own"):
            say()
            mlflow.update_current_trace(client_request_id=f"own {way}")
    assert delivery.flush(120), delivery.stats()
    assert not delivery.stats().dropped, delivery.stats()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
