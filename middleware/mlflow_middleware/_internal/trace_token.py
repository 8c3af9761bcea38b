"""The token in a response that authorizes a later request to add spans to its trace.

Format: ``base64url(JSON [trace id, span id, experiment id or null, expiry]) . base64url(HMAC-SHA256)``,
see `signed_token`. The expiry is in whole seconds since the epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from mlflow_middleware._internal import signed_token
from mlflow_middleware._internal.signed_token import BadToken as BadToken

HEADER = "X-MLflow-Trace-Token"
"""The header that carries the token, in the response and in the later request."""

LIFETIME = 7 * 24 * 3600
"""Validity of a token, in seconds."""

_PURPOSE = b"mlflow-middleware trace\0"  # the same secret may be used for other tokens
_TRACE_ID, _SPAN_ID = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")


class TraceToken(NamedTuple):
    """The content of a token.

    Attributes:
        trace_id: The OpenTelemetry id of the trace.
        span_id: The id of its root span.
        experiment_id: The experiment of the trace; None for the one that the environment names.
    """

    trace_id: int
    span_id: int
    experiment_id: str | None


def sign(token: TraceToken, expires_at: int, key: bytes) -> str:
    """Return a signed token."""
    content = [f"{token.trace_id:032x}", f"{token.span_id:016x}", token.experiment_id, expires_at]
    return signed_token.sign(_PURPOSE, content, key)


def verify(token: str, keys: Iterable[bytes], now: float) -> TraceToken:
    """Verify a token and return its content.

    Args:
        token: The token as a client sent it.
        keys: The accepted keys.
        now: The current time, in seconds since the epoch.

    Raises:
        BadToken: None of the keys signed the token, or it has expired.
    """
    try:
        trace_id, span_id, experiment_id, expires_at = signed_token.verify(_PURPOSE, token, keys)
        if not (_TRACE_ID.fullmatch(trace_id) and _SPAN_ID.fullmatch(span_id)):
            raise ValueError
        known = TraceToken(int(trace_id, 16), int(span_id, 16), experiment_id)
    except (ValueError, TypeError):
        raise BadToken(signed_token.NOT_OURS) from None
    if expires_at <= now:
        raise BadToken("the token has expired")
    return known
