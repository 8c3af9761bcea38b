"""The token that a response carries, and with which a later request may add spans to its trace.

``base64url(JSON [trace id, span id, experiment id or null, expiry]) . base64url(HMAC-SHA256)``: see `signed_token`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from mlflow_middleware._internal import signed_token
from mlflow_middleware._internal.signed_token import BadToken as BadToken

HEADER = "X-MLflow-Trace-Token"
"""The header of the response that carries the token, and of the later request that shows it."""

LIFETIME = 7 * 24 * 3600
"""Seconds that a token is good for."""

_PURPOSE = b"mlflow-middleware trace\0"  # the same secret may serve for something else
_TRACE_ID, _SPAN_ID = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}")


class TraceToken(NamedTuple):
    """What a token says.

    Attributes:
        trace_id: OpenTelemetry's trace id.
        span_id: That of its root.
        experiment_id: Where the trace is; None for the experiment that the environment names.
    """

    trace_id: int
    span_id: int
    experiment_id: str | None


def sign(token: TraceToken, expires_at: int, key: bytes) -> str:
    """Make a token."""
    said = [f"{token.trace_id:032x}", f"{token.span_id:016x}", token.experiment_id, expires_at]
    return signed_token.sign(_PURPOSE, said, key)


def verify(token: str, keys: Iterable[bytes], now: float) -> TraceToken:
    """Read a token.

    Args:
        token: As a client sent it.
        keys: Any of them may have signed it.
        now: Seconds since the epoch.

    Raises:
        BadToken: None of the keys has signed it, or its time is over.
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
