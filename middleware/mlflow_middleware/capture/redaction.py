"""Which keys hold secrets, and how their values are replaced: in JSON, in text, in query strings."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_plus

from mlflow_middleware.capture import secret_text, strict_json

REDACTED = "[redacted]"
"""What stands in a trace where a secret stood in the request."""

MAX_ATTRIBUTE = 1024
"""Characters kept of one header, path or query string on a span."""

MAX_DEPTH = 100
"""Levels of JSON that are looked into; what lies deeper is replaced."""

_MAX_CACHED = 256
"""Characters of a key whose answer is remembered; a key in a body may be as long as the body."""

_MAYBE_JSON = re.compile(r'\s*[\[{"]')
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
        self._remembered = functools.lru_cache(maxsize=4096)(self._matches)

    def matches(self, key: str) -> bool:
        """Whether the key's value is a secret."""
        return self._remembered(key) if len(key) <= _MAX_CACHED else self._matches(key)

    def _matches(self, key: str) -> bool:
        words = _words(key)
        return any(pattern in words for pattern in self._patterns)

    def value(self, key: str, value: str) -> str:
        """The value, or what stands in its place where the key holds a secret."""
        return REDACTED if self.matches(key) else value

    def query(self, query_string: str) -> str:
        """The query string with the values of secret parameters replaced; all else byte for byte."""
        return "&".join(self._parameter(part) for part in query_string.split("&"))

    def json(self, value: Any) -> Any:
        """A copy of parsed JSON with the values of secret keys replaced.

        They are found at any depth, also in text that is itself JSON. What lies deeper than 100 levels is
        replaced whatever it is.
        """
        return self._json(value, MAX_DEPTH)

    def text(self, text: str) -> str:
        """The text with the values of secret keys replaced, as far as they can be told from the rest.

        A key is known by what follows it: ``"key": value``, ``'key': value``, ``key=value``, or a line of its
        own that reads ``key: value``. Where a value does not end, all the rest is replaced.
        """
        return secret_text.redacted(text, self.matches, REDACTED)

    def _json(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value, depth) if _MAYBE_JSON.match(value) else value
        if not isinstance(value, (dict, list)):
            return value
        if not depth:
            return REDACTED
        if isinstance(value, list):
            return [self._json(item, depth - 1) for item in value]
        return {key: REDACTED if self.matches(key) else self._json(item, depth - 1) for key, item in value.items()}

    def _string(self, text: str, depth: int) -> str:
        """Text that may be JSON: written anew only where something in it was replaced."""
        try:
            value = strict_json.parsed(text)
        except ValueError:
            return self.text(text)
        redacted = self._json(value, depth - 1) if depth else REDACTED
        return text if redacted == value else json.dumps(redacted, ensure_ascii=False)

    def _parameter(self, part: str) -> str:
        key, separator, _ = part.partition("=")
        return f"{key}={REDACTED}" if separator and self.matches(unquote_plus(key)[:256]) else part


def _words(key: str) -> str:
    """The words of a key, lower-case, each between spaces, so that ``in`` compares whole words."""
    return "".join(f" {word.lower()} " for word in _WORD.findall(key))
