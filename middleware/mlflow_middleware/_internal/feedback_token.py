"""The token in a response that authorizes feedback on its trace, required if ``feedback_secret`` is set.

Format: ``base64url(JSON [trace id, user id as stored or null, expiry]) . base64url(HMAC-SHA256)``, see `signed_token`.
The expiry is in whole seconds since the epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from mlflow_middleware._internal import signed_token
from mlflow_middleware._internal.signed_token import BadToken as BadToken

HEADER = "X-Feedback-Token"
"""The header that carries the token, in the response and in the feedback request."""

LIFETIME = 7 * 24 * 3600
"""Validity of a token, in seconds."""

_PURPOSE = b"mlflow-middleware feedback\0"  # the same secret may be used for other tokens


def voter(token: str) -> str:
    """Return a name for the anonymous owner of a token: unique per token and impossible to guess."""
    return "anonymous-" + hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:16]


class Token(NamedTuple):
    """The content of a token.

    Attributes:
        trace_id: The trace that the token is valid for.
        user_id: The user as stored; None if the request had no user.
        expires_at: Expiry, in seconds since the epoch.
    """

    trace_id: str
    user_id: str | None
    expires_at: int


def sign(trace_id: str, user_id: str | None, expires_at: int, key: bytes) -> str:
    """Return a signed token."""
    return signed_token.sign(_PURPOSE, [trace_id, user_id, expires_at], key)


def verify(token: str, keys: Iterable[bytes], now: float) -> Token:
    """Verify a token and return its content.

    Args:
        token: The token as a client sent it.
        keys: The accepted keys.
        now: The current time, in seconds since the epoch.

    Raises:
        BadToken: None of the keys signed the token, or it has expired.
    """
    content = signed_token.verify(_PURPOSE, token, keys)
    try:
        signed = Token(*content)
    except TypeError:
        raise BadToken(signed_token.NOT_OURS) from None
    if signed.expires_at <= now:
        raise BadToken("the token has expired")
    return signed
