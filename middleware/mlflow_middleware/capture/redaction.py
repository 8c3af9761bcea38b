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

_JSON_START = re.compile(r'[\s\0]*[\[{"]')
_QUOTED_KEY = re.compile(r'"[\s\0]*:')
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
        self._signs = [_sign(pattern.split()) for pattern in self._patterns]
        self._remembered = functools.lru_cache(maxsize=4096)(self._matches)

    def matches(self, key: str) -> bool:
        """Whether the key's value is a secret."""
        return self._remembered(key) if len(key) <= _MAX_CACHED else self._matches(key)

    def _matches(self, key: str) -> bool:
        words = _words(key)
        return any(pattern in words for pattern in self._patterns)

    def is_clean(self, text: str) -> bool:
        """Whether a quick look shows that no key in a text matches, also in text inside of it: `json` and `text` would
        leave it as it is. False says nothing. 3 us for a chat's body, where a walk takes 20.
        """
        lower = text.lower()
        if ("%" in lower or "\\u00" in lower) and _HIDDEN.search(lower):
            return False
        suspects = [key for word, key in self._signs if word in lower]
        return not any(key.search(text) for key in suspects)

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
        plain = text.replace("\0", "")  # it may be UTF-16 that does not say so
        redacted = secret_text.redacted(plain, self.matches, REDACTED)
        return text if redacted == plain else redacted

    def pieces(self, values: list[Any]) -> list[Any]:
        """As `json`, of what came in pieces: text that stands at the same place of each is looked at as one, too.

        Where a secret is found in it, the first of the pieces has all of the text and the others none. The values are
        changed.
        """
        for parts in _texts_by_place(values):
            text = "".join(container[key] for container, key in parts)
            if len(parts) > 1 and _may_hold_json(text) and (clean := self._string(text, MAX_DEPTH)) != text:
                for container, key in parts:
                    container[key], clean = clean, ""
        redacted: list[Any] = self.json(values)
        return redacted

    def _json(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value, depth) if _may_hold_json(value) else value
        if not isinstance(value, (dict, list)):
            return value
        if not depth:
            return REDACTED
        if isinstance(value, list):
            return [self._json(item, depth - 1) for item in value]
        return {self._key(key): self._item(key, item, depth - 1) for key, item in value.items()}

    def _item(self, key: str, item: Any, depth: int) -> Any:
        return REDACTED if self.matches(key) else self._json(item, depth)

    def _key(self, key: str) -> str:
        """A key, which may be JSON itself, where a form was none."""
        return self._string(key, MAX_DEPTH) if _may_hold_json(key) else key

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
        name = unquote_plus(key)
        if separator and '"' not in name and self.matches(name[:256]):
            return f"{key}={REDACTED}"
        text = unquote_plus(part)
        return REDACTED if _may_hold_json(text) and self.json(text) != text else part


def _may_hold_json(text: str) -> bool:
    if '"' not in text and "{" not in text and "[" not in text:  # most text: 0.1 us instead of 1
        return False
    return _JSON_START.match(text) is not None or _QUOTED_KEY.search(text) is not None


def _texts_by_place(values: list[Any]) -> Iterable[list[tuple[Any, Any]]]:
    """Where the texts of a stream's pieces are, each in its dict or list; those of one place together, in order."""
    found: dict[int, list[tuple[Any, Any]]] = {}
    places: dict[tuple[object, ...], int] = {}

    def look(container: Any, key: Any, place: int, depth: int) -> None:
        value = container[key]
        if isinstance(value, str):
            found.setdefault(place, []).append((container, key))
        elif isinstance(value, (dict, list)) and depth:
            which = [value.get(name) for name in _PLACE_KEYS] if isinstance(value, dict) else []
            whole = (place, *(each for each in which if isinstance(each, (int, str))))
            for name in value if isinstance(value, dict) else range(len(value)):
                look(value, name, places.setdefault((*whole, name), len(places) + 1), depth - 1)

    for index in range(len(values)):
        look(values, index, 0, MAX_DEPTH)
    return found.values()


_PLACE_KEYS = ("index", "output_index", "item_id")
"""What tells pieces of several texts apart, in the streams of language models."""


_HIDDEN = re.compile(r"\\u00[0-7]|%[0-9a-f]{2}")
"""A character of ASCII that is written as its number, in JSON, or any in a form."""


def _sign(words: list[str]) -> tuple[str, re.Pattern[str]]:
    """What a text has in it where a key with these words in a row may be: a word, in lower case, and a pattern."""
    between = r"(?:[^A-Za-z0-9]|\\[bfnrt]|\\u[0-9A-Fa-f]{4})*"
    pattern = between.join(f"(?i:{word})" for word in words)
    end = "" if words[-1].isdigit() else "(?![a-z])"  # a letter goes on with a word, but not with a number
    return max(words, key=len), re.compile(pattern + end)


def _words(key: str) -> str:
    """The words of a key, lower-case, each between spaces, so that ``in`` compares whole words."""
    return "".join(f" {word.lower()} " for word in _WORD.findall(key))
