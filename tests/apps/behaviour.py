"""The handlers of all test apps, so that each framework's app only has to route."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import mlflow

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.logs import ContextFilter
from mlflow_middleware.request_trace import annotate, current, outbound_headers

OPTIONS: dict[str, Any] = json.loads(os.environ.get("APP_OPTIONS", "{}"))
"""The middleware's options that a test sets."""

FEEDBACK_OPTIONS: dict[str, Any] = json.loads(os.environ.get("APP_FEEDBACK_OPTIONS", "{}"))
"""The options of the feedback route."""

WAIT = 0.02
"""Seconds that a handler waits, so that requests really overlap."""


def answer(chat_id: str) -> dict[str, Any]:
    """Open a child span, and return the request's context during it."""
    with mlflow.start_span("answer") as span:
        time.sleep(WAIT)
        return _seen(chat_id, span.trace_id)


async def answer_async(chat_id: str) -> dict[str, Any]:
    """Do the same as `work`, awaiting."""
    with mlflow.start_span("answer") as span:
        await asyncio.sleep(WAIT)
        return _seen(chat_id, span.trace_id)


def _seen(chat_id: str, trace_id: str) -> dict[str, Any]:
    trace = current()
    who = trace.identity if trace else Identity()
    ids = {"request_id": who.request_id, "session_id": who.session_id, "user_id": who.user_id}
    return {"chat_id": chat_id, "trace_id": trace_id, **ids}


def say() -> dict[str, Any]:
    """Annotate the request."""
    annotate(user_id="claimed", session_id="from-the-app", tags={"plan": "pro"}, metadata={"kb": "2026-11"})
    return {}


def outbound() -> dict[str, str]:
    """Return the headers for the next service."""
    with mlflow.start_span("call"):
        return outbound_headers()


def log_line() -> str:
    """Return a log line formatted as in an app."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(ContextFilter())
    handler.setFormatter(logging.Formatter("%(message)s|%(request_id)s|%(session_id)s|%(user_id)s|%(trace_id)s|end"))
    handler.handle(logging.LogRecord("app", logging.INFO, "", 0, "hello", None, None))
    return stream.getvalue()


def chunks() -> Iterator[bytes]:
    """Stream, with a child span and an annotation on each chunk."""
    for index in range(3):
        with mlflow.start_span(f"chunk-{index}"):
            annotate(tags={f"chunk-{index}": "seen"})
        yield f"{index}\n".encode()


def events() -> Iterator[bytes]:
    """Stream in OpenAI's format."""
    for word in ("Tea", " and", " cake"):
        delta = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]}
        yield f"data: {json.dumps(delta)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def ticks() -> Iterator[bytes]:
    """Stream for longer than the client waits."""
    for _ in range(1000):
        yield b"data: tick\n\n"
        time.sleep(WAIT)


def fail() -> None:
    """Raise an exception."""
    raise RuntimeError("the model is unavailable")


def mask(exchange: Exchange) -> None:
    """Replace a number in the inputs, and all of the output."""
    exchange.inputs = {"note": exchange.inputs["note"].replace("555-0100", "[number]")}
    exchange.outputs = "masked"


def is_csv(exchange: Exchange) -> str | None:
    """Find errors by a header."""
    return "a table" if exchange.response_headers["content-type"].startswith("text/csv") else None


def failing_mask(exchange: Exchange) -> None:
    """Fail, as a faulty mask does."""
    raise RuntimeError("no mask today")


def identify(exchange: Exchange) -> Identity:
    """Return the framework's user."""
    return Identity(user_id=f"auth-of-{exchange.headers.get('authorization', 'nobody')}")
