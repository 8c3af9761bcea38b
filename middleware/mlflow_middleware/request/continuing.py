"""Continuation of an earlier trace by a later request, such as an approval or a tool that ran in the browser."""

from __future__ import annotations

import logging
import time

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal import trace_token
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware._internal.trace_token import BadToken, TraceToken
from mlflow_middleware.request import sampling
from mlflow_middleware.request.activation import current_request
from mlflow_middleware.request.defaults import settings_here
from mlflow_middleware.trace.record import KEPT, SpanIds, TraceRecord

logger = logging.getLogger("mlflow_middleware")

_logged: set[str] = set()
"""Reasons that have been logged."""


def trace_token_of(record: TraceRecord) -> str | None:
    """Return the token for a request's trace, which is then kept; None if sampling may drop the trace."""
    settings = record.settings
    key = record.identity.session_id or record.trace_id
    if record.verdict != KEPT and not sampling.keeps(settings, key, failed=False, seconds=0.0):
        return None
    record.is_promised = True  # even if the session changes later
    token = TraceToken(*record.ids, record.experiment_id)
    return trace_token.sign(token, int(time.time()) + trace_token.LIFETIME, settings.trace_token_keys[0])


@guarded
def begin(token: str | None) -> mlflow_bridge.Undo | None:
    """Add the spans opened from now on to an earlier trace.

    Returns:
        A function that undoes it in the same context; None if the token is invalid or spans cannot be added.
    """
    settings = settings_here()
    if not settings.enabled:
        return None
    try:
        earlier = _verified(token, settings.trace_token_keys)
    except BadToken as problem:
        _log(str(problem))
        return None
    ids = SpanIds(earlier.trace_id, earlier.span_id)
    request = current_request.get()
    keeps_words = request is None or request.record.keeps_words
    undo = mlflow_bridge.tracing.continue_trace(ids, earlier.experiment_id, keeps_words=keeps_words)
    if undo is None:
        _log("the delivery of traces is not the middleware's own")
    return undo


def _verified(token: str | None, keys: tuple[bytes, ...]) -> TraceToken:
    if not keys:
        raise BadToken("trace_token_secret is not set")
    if not token:
        raise BadToken(f"the {trace_token.HEADER} header is missing")
    return trace_token.verify(str(token), keys, time.time())


def _log(why: str) -> None:
    """Log each reason once as a warning, then at level DEBUG: anybody can send a wrong token."""
    level = logging.DEBUG if why in _logged else logging.WARNING
    _logged.add(why)
    logger.log(level, "earlier trace not continued, spans stay in the trace of this request: %s", why)
