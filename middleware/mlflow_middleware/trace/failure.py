"""Decides whether an answer is an error whatever its status says; when its trace is encoded, or may be dropped."""

from __future__ import annotations

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture import contents, error_rules
from mlflow_middleware.trace.record import TraceRecord


def judge(record: TraceRecord) -> None:
    """Set the failure of a request by ``error_when``; once, as soon as its answer is complete."""
    if record.is_complete and not record.is_judged:
        record.is_judged = True
        if error_rules.may_fail(record.exchange, record.settings.error_when):
            _judge(record)


@guarded
def _judge(record: TraceRecord) -> None:
    """Read the answer, before ``mask`` may leave nothing of it; few answers are read twice for this."""
    exchange, settings = record.exchange, record.settings
    if record.contents is None:
        keeping = settings.keeping(exchange.path)._replace(inputs=True, outputs=True)
        contents.fill(exchange, settings.redactor, settings.max_body_bytes, None, keeping)
    try:
        record.failure = error_rules.failure_of(exchange, settings.error_when, settings.redactor)
    finally:
        exchange.inputs = exchange.outputs = None
