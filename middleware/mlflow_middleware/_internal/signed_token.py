"""Signed tokens of this app: ``base64url(JSON) . base64url(HMAC-SHA256)``, without padding."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any

MAX_TOKEN = 4096
"""Maximum number of characters of a token that are read."""

NOT_OURS = "the token was not signed by this app"


class BadToken(Exception):
    """An invalid token; the message has the reason."""


def sign(purpose: bytes, content: Sequence[object], key: bytes) -> str:
    """Return a signed token.

    Args:
        purpose: The purpose of the token; it is not valid for any other.
        content: The content, JSON-serializable.
        key: The key to sign with.
    """
    payload = _base64(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    return f"{payload}.{_signature(purpose, payload, key)}"


def verify(purpose: bytes, token: str, keys: Iterable[bytes]) -> list[Any]:
    """Verify a token and return its content.

    Raises:
        BadToken: None of the keys signed the token for that purpose.
    """
    payload, _, signature = token[:MAX_TOKEN].partition(".")
    given = signature.encode("utf-8", "replace")
    if not any(hmac.compare_digest(given, _signature(purpose, payload, key).encode()) for key in keys):
        raise BadToken(NOT_OURS)
    try:
        content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError):
        raise BadToken(NOT_OURS) from None
    if not isinstance(content, list):
        raise BadToken(NOT_OURS)
    return content


def _signature(purpose: bytes, payload: str, key: bytes) -> str:
    return _base64(hmac.new(key, purpose + payload.encode("utf-8", "replace"), hashlib.sha256).digest())


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
