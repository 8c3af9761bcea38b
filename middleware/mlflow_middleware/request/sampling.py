"""Sampling: the decision to keep or drop a trace.

It is made at the end of the request, when the outcome and the conversation are known.
"""

from __future__ import annotations

import hashlib

from mlflow_middleware.settings import Settings


def keeps(settings: Settings, key: str, *, failed: bool, seconds: float) -> bool:
    """Return whether a trace is kept.

    Args:
        settings: The settings, with ``sample_ratio``, ``keep_errors`` and ``keep_slower_than``.
        key: The sampling unit: the session id, so that a conversation is kept or dropped as a whole; without one, the
            trace id.
        failed: Whether the trace is an error.
        seconds: The request's duration.
    """
    if settings.sample_ratio >= 1.0 or (failed and settings.keep_errors):
        return True
    if settings.keep_slower_than is not None and seconds > settings.keep_slower_than:
        return True
    return _place(key, settings.sampling_key) < settings.sample_ratio


def _place(key: str, secret: bytes) -> float:
    """Return a pseudo-random number from 0 to 1 that every process with the secret computes for this key."""
    secret = secret if len(secret) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.blake2b(secret).digest()
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "big") / 2**64
