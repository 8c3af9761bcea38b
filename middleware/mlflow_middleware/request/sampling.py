"""Keep or drop: which traces are sent, where not all are.

Decided when the request is over, when it is known how it ended and to which conversation it belongs.
"""

from __future__ import annotations

import hashlib

from mlflow_middleware.settings import Settings


def keeps(settings: Settings, key: str, *, failed: bool, seconds: float) -> bool:
    """Return whether a trace is kept.

    Args:
        settings: ``sample_ratio``, ``keep_errors`` and ``keep_slower_than`` decide.
        key: What the share is drawn by: the session id, so that a conversation is kept or dropped whole; the trace id
            where there is none.
        failed: Whether the trace is an error.
        seconds: How long the request took.
    """
    if settings.sample_ratio >= 1.0 or (failed and settings.keep_errors):
        return True
    if settings.keep_slower_than is not None and seconds > settings.keep_slower_than:
        return True
    return _place(key, settings.sampling_key) < settings.sample_ratio


def _place(key: str, secret: bytes) -> float:
    """Return a number from 0 to 1 that looks random, and is the same for the same key in every process with that secret."""
    secret = secret if len(secret) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.blake2b(secret).digest()
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "big") / 2**64
