"""The page of limits has the numbers of the code."""

from __future__ import annotations

import pytest

from mlflow_middleware import exchange, identity, settings
from mlflow_middleware._internal.deadline import MAX_ABANDONED
from mlflow_middleware.capture import MAX_ATTRIBUTE, content, decoding, multipart, redaction, streams, strict_json
from mlflow_middleware.delivery import (
    backoff,
    batch,
    destination,
    encoder,
    health,
    pipelined_http,
    queue,
    replies,
    spooling,
)
from mlflow_middleware.feedback import body as feedback_body
from mlflow_middleware.mlflow_bridge import exporter, readable, registry
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace import keys
from tests.servers import ROOT

pytestmark = pytest.mark.once

MEBIBYTE = 1024 * 1024
DEFAULTS = Settings()

SAID: dict[str, list[float]] = {
    "headers": [exchange.MAX_HEADERS, exchange.MAX_HEADER_BYTES],
    "path, query string": [exchange.MAX_TARGET, MAX_ATTRIBUTE],
    "form fields, parameters of a query string": [content.MAX_FIELDS],
    "request id": [identity.MAX_REQUEST_ID],
    "session id, user id": [identity.MAX_ID],
    "tag or metadata that `annotate` sets": [settings.MAX_TAG_VALUE],
    "captured header, user agent, client address": [MAX_ATTRIBUTE],
    "a body": [DEFAULTS.max_body_bytes],
    "headers of a form's parts": [multipart.MAX_HEADERS],
    "events of any other stream, fields of a multipart form": [streams.MAX_EVENTS, multipart.MAX_PARTS],
    "layers of `Content-Encoding`": [decoding.MAX_LAYERS],
    "levels of JSON": [strict_json.MAX_NESTING, redaction.MAX_DEPTH],
    "levels of JSON in the app's own spans": [readable.MAX_READABLE],
    "integers in JSON": [readable.MAX_INTEGER.bit_length() - 1],
    "a session id that the app sets on a span": [keys.MAX_METADATA],
    "memory of finished traces in one process": [DEFAULTS.max_queue_bytes // MEBIBYTE],
    "spool": [DEFAULTS.max_spool_bytes // MEBIBYTE // 1024],
    "one file of the spool": [queue.MAX_BATCH, spooling.MAX_FILE_BYTES // MEBIBYTE],
    "traces in flight in one process": [registry.MAX_IN_FLIGHT],
    "traces that are delivered and have open spans": [exporter.MAX_LATE],
    "wait for spans that end after their root": [encoder.LATE_SPANS],
    "traces in one request": [destination.MAX_SENT, destination.MAX_BATCH_BYTES // MEBIBYTE],
    "one answer": [replies.REQUEST_TIMEOUT, pipelined_http.MAX_ANSWER // MEBIBYTE],
    "no answer, with `spool_dir`": [health.STUCK],
    "pause between two attempts": [backoff.MIN_BACKOFF, backoff.MAX_BACKOFF, backoff.MAX_RETRY_AFTER],
    "failures over one trace alone, while others pass": [batch.PATIENCE],
    "abandoned requests that still run": [MAX_ABANDONED],
    "a vote": [feedback_body.MAX_BODY // 1024, feedback_body.MAX_COMMENT],
    "all of it": [DEFAULTS.shutdown_timeout],
}
"""Row of the page -> its numbers, in order."""


@pytest.mark.parametrize("row", SAID)
def test_the_page_has_the_limits_of_the_code(row: str) -> None:
    """Each number is in the second column."""
    lines = (ROOT / "docs" / "limits.md").read_text().splitlines()
    (bound,) = (line.split(" | ")[1] for line in lines if line.startswith(f"| {row} | "))

    position = 0
    for number in SAID[row]:
        position = bound.index(f"{number:,g}", position) + 1
