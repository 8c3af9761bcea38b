"""The inputs and outputs of a request, read from its bodies when its trace is encoded: off the request path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.capture import attachments, contents, model_calls, previews, strict_json
from mlflow_middleware.capture.content import Content
from mlflow_middleware.capture.garbage import few_collections
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.trace.client import storable_query
from mlflow_middleware.trace.common import call_common
from mlflow_middleware.trace.record import NO_CONTENTS, Contents, TraceRecord, Written

LARGE = 2048
"""Size of bodies and query string from which on reading creates enough objects to start a garbage collection."""


SMALL = 192
"""Maximum size of a body without a file, in characters: the smallest image of a chat is larger."""

Attachment = Callable[[str, str, bytes], tuple[str, str] | None]
"""Creates an attachment from trace id, type and content; returns its id and its reference, or None."""


def contents_of(record: TraceRecord, attachment: Attachment | None = None) -> Contents:
    """Return the inputs and outputs of a request, whose bodies are read once.

    Args:
        record: The request.
        attachment: Creates attachments from files in the bodies; None leaves the files in place.
    """
    if record.contents is None:
        if not record.is_complete:  # the app has ended its span before the response
            return NO_CONTENTS
        exchange = record.exchange
        held = record.held_of_bodies + len(exchange.query_string)
        if held > LARGE or "content-encoding" in exchange.headers or exchange.response_encoding:
            with few_collections():
                record.contents = _contents(record, attachment) or NO_CONTENTS
                exchange.inputs = exchange.outputs = None  # before garbage collection resumes
        else:
            has_any = held or record.settings.mask  # it may add values that are in no body
            record.contents = (has_any and _contents(record, attachment)) or NO_CONTENTS
    return record.contents


@guarded
def _contents(record: TraceRecord, attachment: Attachment | None) -> Contents:
    exchange, settings, keeping = record.exchange, record.settings, record.keeping
    is_kept = keeping.inputs or keeping.outputs
    mask = settings.mask if is_kept else None
    query = exchange.query_string and storable_query(exchange.query_string, settings)
    sent, answer = contents.fill(exchange, settings.redactor, settings.max_body_bytes, mask, keeping, query)
    usage, call = answer.usage, None
    if usage or model_calls.may_be_call(sent.value, answer.value):
        names = model_calls.names_of(sent.value, answer.value, exchange.path, usage, answer.model)
        call = call_common(names) if names else None
    if not is_kept:
        return Contents(None, None, usage, {}, call=call)
    cut = _cut(exchange) if exchange.inputs_cut or exchange.outputs_cut else {}
    files: dict[str, bytes] = {}
    if attachment and (_may_hold_file(sent.text) or _may_hold_file(answer.text)):
        sent, answer = _attached(exchange, sent, answer, partial(_attach, record.trace_id, attachment, files))
    inputs = _written(exchange.inputs, sent.text, previews.of_request)
    outputs = _written(exchange.outputs, answer.text, previews.of_answer)
    return Contents(inputs, outputs, usage, cut, files, call)


def _cut(exchange: Exchange) -> dict[str, object]:
    bodies = (("request", exchange.inputs_cut), ("response", exchange.outputs_cut))
    return {f"http.{name}.body.cut": True for name, is_cut in bodies if is_cut}


def _may_hold_file(text: str | None) -> bool:
    return text is None or (len(text) > SMALL and attachments.may_be_in(text))


def _attached(
    exchange: Exchange, sent: Content, answer: Content, attach: attachments.Attach
) -> tuple[Content, Content]:
    """Attach the files in inputs and outputs; texts that contained a file are encoded anew."""
    inputs, outputs = (attachments.without_files(each, attach) for each in (exchange.inputs, exchange.outputs))
    if inputs is not exchange.inputs:
        sent = replace(sent, text=None)
    if outputs is not exchange.outputs:
        answer = replace(answer, text=None)
    exchange.inputs, exchange.outputs = inputs, outputs
    return sent, answer


def _attach(
    trace_id: str, attachment: Attachment, files: dict[str, bytes], content_type: str, content: bytes
) -> str | None:
    """Store a file; return its replacement, if any."""
    made = attachment(trace_id, content_type, content)
    if made and made[0]:
        files[made[0]] = content
    return made and made[1]


def _written(value: object, text: str | None, preview: Callable[[object], str | None]) -> Written | None:
    if value is None:
        return None
    if text is None:
        value, text = strict_json.written(value)
    readable = preview(value)
    if readable is None:  # then people see the JSON itself
        value, text = strict_json.written(value)
    return Written(text, readable or text)
