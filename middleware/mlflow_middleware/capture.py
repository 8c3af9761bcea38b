"""What of a request may be kept, and what is replaced before anything else sees it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

REDACTED = "[redacted]"
"""What stands in a trace where a secret stood in the request."""

MAX_ATTRIBUTE = 1024
"""Characters kept of one header, path or query string on a span."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class Redactor:
    """Knows which keys hold secrets.

    A key matches when the words of a listed one stand in it in a row: ``api_key`` covers ``X-API-Key``,
    ``apiKey`` and ``openai_api_key``; ``token`` covers ``accessToken``, and not ``max_tokens``.

    Args:
        keys: The listed keys, in any spelling.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._patterns = tuple(pattern for key in keys if (pattern := _words(key)))
        self.matches = functools.lru_cache(maxsize=4096)(self._matches)

    def _matches(self, key: str) -> bool:
        words = _words(key)
        return any(pattern in words for pattern in self._patterns)

    def value(self, key: str, value: str) -> str:
        """The value, or what stands in its place where the key holds a secret."""
        return REDACTED if self.matches(key) else value

    def query(self, query_string: str) -> str:
        """The query string with the values of secret parameters replaced; all else byte for byte."""
        return "&".join(self._parameter(part) for part in query_string.split("&"))

    def _parameter(self, part: str) -> str:
        key, separator, _ = part.partition("=")
        return f"{key}={REDACTED}" if separator and self.matches(unquote_plus(key)[:256]) else part


def _words(key: str) -> str:
    """The words of a key, lower-case, each between spaces, so that ``in`` compares whole words."""
    return "".join(f" {word.lower()} " for word in _WORD.findall(key))
