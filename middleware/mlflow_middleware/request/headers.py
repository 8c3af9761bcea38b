"""The response headers that carry ids to the client.

They are added to the app's own headers and never replace one. Browsers can read them.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from mlflow_middleware._internal import feedback_token, trace_token
from mlflow_middleware.request import other_tools
from mlflow_middleware.request.continuing import trace_token_of
from mlflow_middleware.request.request_ids import is_sent_by_outer_middleware
from mlflow_middleware.trace.record import TraceRecord

EXPOSE = "access-control-expose-headers"
"""See https://fetch.spec.whatwg.org/#http-access-control-expose-headers."""


def join(headers: list[tuple[str, str]], ours: Collection[tuple[str, str]], *, cross_origin: bool) -> None:
    """Add our headers to a response's, in place.

    Args:
        headers: The response's headers.
        ours: The headers to add; one whose name the app has set itself is skipped.
        cross_origin: Whether the request has an ``Origin``, so that scripts can read only exposed headers.
    """
    present = {name.lower(): index for index, (name, _) in enumerate(headers)}
    exposed = [value for name, value in headers if name.lower() == EXPOSE] if cross_origin else []
    headers += [(name, value) for name, value in ours if name.lower() not in present]
    have = {part.strip().lower() for value in exposed for part in value.split(",")}
    names = [name for name, _ in ours if name.lower() not in have] if cross_origin else []
    if not names or "*" in have:
        return
    if EXPOSE not in present:
        headers.append(("Access-Control-Expose-Headers", ", ".join(names)))
        return
    name, value = headers[present[EXPOSE]]
    headers[present[EXPOSE]] = (name, ", ".join([*filter(None, [value.strip()]), *names]))


def headers_for_response(record: TraceRecord, trace_id: str | None) -> list[tuple[str, str]]:
    """Return the headers with the ids, all plain ASCII.

    Args:
        record: The request's record.
        trace_id: MLflow's trace id, if there is a trace.
    """
    if other_tools.are_there:
        other_tools.meet(record)
    settings, user_id, request_id = record.settings, record.user_id, record.identity.request_id
    known = {
        "request_id": None if is_sent_by_outer_middleware(request_id) else request_id,
        "session_id": record.identity.session_id,
        "user_id": user_id,
        "trace_id": trace_id,
    }
    headers = [
        (header, value)
        for part, header in settings.response_headers.items()
        if (value := known[part]) and value.isascii()
    ]
    return headers + _tokens(record, trace_id, user_id) if trace_id and settings.gives_tokens else headers


def _tokens(record: TraceRecord, trace_id: str, user_id: str | None) -> list[tuple[str, str]]:
    """Return the headers with the tokens that permit feedback and the continuation of the trace."""
    headers, settings = [], record.settings
    if keys := settings.feedback_keys:
        expires_at = int(time.time()) + feedback_token.LIFETIME
        headers.append((feedback_token.HEADER, feedback_token.sign(trace_id, user_id, expires_at, keys[0])))
    if settings.trace_token_secret and (token := trace_token_of(record)):
        headers.append((trace_token.HEADER, token))
    return headers
