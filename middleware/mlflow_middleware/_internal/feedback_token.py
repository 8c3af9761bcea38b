"""The token that a response carries, and without which feedback on its trace is not taken where it is signed.

``base64url(JSON [trace id, user id as stored or null, expiry]) . base64url(HMAC-SHA256)``, without padding; the expiry
is in whole seconds since the epoch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable
from typing import NamedTuple

HEADER = "X-Feedback-Token"
"""The header of the response that carries the token, and of the feedback that shows it."""

LIFETIME = 7 * 24 * 3600
"""Seconds that a token is good for."""

MAX_TOKEN = 4096
"""Characters of a token that are looked at."""

_PURPOSE = b"mlflow-middleware feedback\0"  # the same secret may serve for something else


def voter(token: str) -> str:
    """A name for whoever has a token without a user: another one for each token, of which none can be guessed."""
    return "anonymous-" + hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:16]


class BadToken(Exception):
    """A token that proves nothing; the message says why."""


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
    payload = _base64(json.dumps([trace_id, user_id, expires_at], ensure_ascii=False).encode("utf-8", "replace"))
    return f"{payload}.{_signature(payload, key)}"


def verify(token: str, keys: Iterable[bytes], now: float) -> Token:
    """Read a token.

    Args:
        token: As a client sent it.
        keys: Any of them may have signed it.
        now: Seconds since the epoch.

    Raises:
        BadToken: None of the keys has signed it, or its time is over.
    """
    payload, _, signature = token[:MAX_TOKEN].partition(".")
    given = signature.encode("utf-8", "replace")
    if not any(hmac.compare_digest(given, _signature(payload, key).encode()) for key in keys):
        raise BadToken("the token is not one that this app has signed")
    try:
        signed = Token(*json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (binascii.Error, ValueError, TypeError):
        raise BadToken("the token is not one that this app has signed") from None
    if signed.expires_at <= now:
        raise BadToken("the token has expired")
    return signed


def _signature(payload: str, key: bytes) -> str:
    return _base64(hmac.new(key, _PURPOSE + payload.encode("utf-8", "replace"), hashlib.sha256).digest())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
