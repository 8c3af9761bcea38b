"""Reads the inputs and outputs of a request from its bodies, when its trace is encoded: off the request path."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture import contents, previews, strict_json
from mlflow_middleware.capture.garbage import few_collections
from mlflow_middleware.trace.record import NO_CONTENTS, Contents, TraceRecord, Written

LARGE = 2048
"""Bytes of bodies and query string in which so many objects may be that they would begin a garbage collection."""


def contents_of(record: TraceRecord) -> Contents:
    """Return the inputs and outputs of a request; its bodies are read once."""
    if record.contents is None:
        if not record.is_complete:  # the app has ended its span before it has answered
            return NO_CONTENTS
        exchange = record.exchange
        held = record.held_of_bodies + len(exchange.query_string)
        if held > LARGE or "content-encoding" in exchange.headers or exchange.response_encoding:
            with few_collections():
                record.contents = _contents(record) or NO_CONTENTS
                exchange.inputs = exchange.outputs = None  # before there may be collections again
        else:
            record.contents = (held and _contents(record)) or NO_CONTENTS
    return record.contents


@guarded
def _contents(record: TraceRecord) -> Contents:
    exchange, settings = record.exchange, record.settings
    with_query = settings.keeps_query(exchange.path)
    sent, answer = contents.fill(exchange, settings.redactor, settings.max_body_bytes, settings.mask, with_query)
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
