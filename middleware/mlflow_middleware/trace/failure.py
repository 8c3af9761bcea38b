"""The decision whether a response is an error regardless of its status, made before its trace is encoded or dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware._internal.keeping import Keeping
from mlflow_middleware.capture import contents, error_rules
from mlflow_middleware.capture.body import Body
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.trace.record import TraceRecord


def judge(record: TraceRecord) -> None:
    """Set the failure of a request according to ``error_when``, once, after its response is complete."""
    if record.is_complete and not record.is_judged:
        record.is_judged = True
        with _stored_content_only(record.exchange, record.keeping):
            if error_rules.may_fail(record.exchange, record.settings.error_when):
                _judge(record, record.keeping)


@contextmanager
def _stored_content_only(exchange: Exchange, keeping: Keeping) -> Iterator[None]:
    """Hide the parts of the bodies that are read but not stored, so that no reason reveals them."""
    bodies = exchange.request_body, exchange.response_body
    if not keeping.inputs:
        exchange.request_body = _unread(bodies[0])
    if not keeping.outputs:
        exchange.response_body = _unread(bodies[1])
    try:
        yield
    finally:
        exchange.request_body, exchange.response_body = bodies


def _unread(body: Body | None) -> Body | None:
    if body is None:
        return None
    unread = Body(0)
    unread.size, unread.chunks = body.size, body.chunks
    return unread


@guarded
def _judge(record: TraceRecord, keeping: Keeping) -> None:
    """Read the response before ``mask`` may remove its content; few responses are read twice because of this."""
    exchange, settings = record.exchange, record.settings
    if record.contents is None:
        contents.fill(exchange, settings.redactor, settings.max_body_bytes, None, keeping)
    try:
        record.failure = error_rules.failure_of(exchange, settings.error_when, settings.redactor)
    finally:
        exchange.inputs = exchange.outputs = None
