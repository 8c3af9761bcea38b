"""Reads the inputs and outputs of a request from its bodies, when its trace is encoded: off the request path."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_middleware.capture import contents, previews, strict_json
from mlflow_middleware.guard import guarded
from mlflow_middleware.trace.record import NO_CONTENTS, Contents, TraceRecord, Written


def contents_of(record: TraceRecord) -> Contents:
    """Return the inputs and outputs of a request; its bodies are read once."""
    if record.contents is None:
        if not record.is_complete:  # the app has ended its span before it has answered
            return NO_CONTENTS
        exchange = record.exchange
        has_some = bool(exchange.query_string or record.held_of_bodies)
        record.contents = (has_some and _contents(record)) or NO_CONTENTS
    return record.contents


@guarded
def _contents(record: TraceRecord) -> Contents:
    exchange, settings = record.exchange, record.settings
    sent, answer = contents.fill(exchange, settings.redactor, settings.max_body_bytes, settings.mask)
    bodies = (("request", exchange.inputs_cut), ("response", exchange.outputs_cut))
    cut = {f"http.{name}.body.cut": True for name, is_cut in bodies if is_cut}
    inputs = _written(exchange.inputs, sent.text, previews.of_request)
    outputs = _written(exchange.outputs, answer.text, previews.of_answer)
    return Contents(inputs, outputs, answer.usage, cut)


def _written(value: object, text: str | None, preview: Callable[[object], str | None]) -> Written | None:
    if value is None:
        return None
    if text is None:
        value, text = strict_json.written(value)
    readable = preview(value)
    if readable is None:  # then it is the JSON that people see
        value, text = strict_json.written(value)
    return Written(text, readable or text)
