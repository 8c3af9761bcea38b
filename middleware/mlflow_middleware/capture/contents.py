"""The inputs and outputs of an exchange, built from its recorded bodies after the response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.content import Content, form_fields, read, unread
from mlflow_middleware.capture.redaction import Redactor
from mlflow_middleware.exchange import Exchange

if TYPE_CHECKING:
    from mlflow_middleware._internal.keeping import Keeping


def fill(
    exchange: Exchange,
    redactor: Redactor,
    limit: int,
    mask: Callable[[Exchange], object] | None,
    keeping: Keeping | None = None,
    query: str | None = None,
) -> tuple[Content, Content]:
    """Set ``inputs`` and ``outputs`` of an exchange, redacted and masked.

    Args:
        exchange: The exchange.
        redactor: The redactor.
        limit: Maximum number of bytes of a body, before and after decompression.
        mask: The option ``mask``, which may change ``inputs`` and ``outputs``.
        keeping: The limits on what is stored; None to store all.
        query: The query string for ``inputs``; None for that of the exchange.

    Returns:
        The parsed bodies of request and response; without their text if ``inputs`` or ``outputs`` may differ from it.

    Raises:
        Exception: Any exception of ``mask``; then the bodies must not be stored.
    """
    sent, answer = read_bodies(exchange, redactor, limit)
    exchange.inputs, exchange.outputs = sent.value, answer.value
    exchange.inputs_cut, exchange.outputs_cut = sent.cut, answer.cut
    if keeping is not None and not keeping.inputs:
        exchange.inputs = None
    elif query := exchange.query_string if query is None else query:
        exchange.inputs = _with_query(exchange.inputs, redactor.json(form_fields(query)[0]))
        sent = replace(sent, text=None)
    if keeping is not None and not keeping.outputs:
        exchange.outputs = None
    if mask is not None:
        mask(exchange)
        sent, answer = replace(sent, text=None), replace(answer, text=None)
    return sent, answer


def read_bodies(exchange: Exchange, redactor: Redactor, limit: int) -> tuple[Content, Content]:
    """Return the parsed bodies of request and response, redacted."""
    headers = exchange.headers
    encoding, kind = headers.get("content-encoding", ""), headers.get("content-type", "")
    sent = _content(exchange.request_body, kind, encoding, redactor, limit)
    return sent, _content(exchange.response_body, exchange.response_type, exchange.response_encoding, redactor, limit)


def _content(body: Body | None, content_type: str, encoding: str, redactor: Redactor, limit: int) -> Content:
    if body is None or not (held := body.held):
        return Content(None, cut=False)
    if held == 1 and body.is_unseen:
        return unread(content_type, body.size)
    return read(body.kept, body.size, content_type, encoding, limit, redactor, body.follower)


def _with_query(body: Any, query: dict[str, Any]) -> Any:
    if body is None:
        return query or None
    if not query:
        return body
    if isinstance(body, dict) and "query" not in body:
        return {**body, "query": query}
    return {"body": body, "query": query}
