"""The token that a response carries, and without which feedback on its trace is not taken where it is signed.

``base64url(JSON [trace id, user id as stored or null, expiry]) . base64url(HMAC-SHA256)``, see `signed_token`; the
expiry is in whole seconds since the epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from mlflow_middleware._internal import signed_token
from mlflow_middleware._internal.signed_token import BadToken as BadToken

HEADER = "X-Feedback-Token"
"""The header of the response that carries the token, and of the feedback that shows it."""

LIFETIME = 7 * 24 * 3600
"""Seconds that a token is good for."""

_PURPOSE = b"mlflow-middleware feedback\0"  # the same secret may serve for something else


def voter(token: str) -> str:
    """A name for whoever has a token without a user: another one for each token, of which none can be guessed."""
    return "anonymous-" + hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:16]


class Token(NamedTuple):
    """What a token says.

    Attributes:
        trace_id: The trace that it is good for.
        user_id: The user as stored; None where the request had none.
        expires_at: Seconds since the epoch.
    """

    trace_id: str
    user_id: str | None
    expires_at: int


def sign(trace_id: str, user_id: str | None, expires_at: int, key: bytes) -> str:
    """Make a token."""
    return signed_token.sign(_PURPOSE, [trace_id, user_id, expires_at], key)


def verify(token: str, keys: Iterable[bytes], now: float) -> Token:
    """Read a token.

    Args:
        token: As a client sent it.
        keys: Any of them may have signed it.
        now: Seconds since the epoch.

    Raises:
        BadToken: None of the keys has signed it, or its time is over.
    """
    said = signed_token.verify(_PURPOSE, token, keys)
    try:
        signed = Token(*said)
    except TypeError:
        raise BadToken(signed_token.NOT_OURS) from None
    if signed.expires_at <= now:
        raise BadToken("the token has expired")
    return signed
