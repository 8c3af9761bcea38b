"""Redaction of secrets in JSON, text and query strings."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from mlflow_middleware.capture import secret_glance, secret_objects, secret_shapes, secret_text, strict_json
from mlflow_middleware.capture.secret_keys import DEFAULT, Keys, is_secret
from mlflow_middleware.capture.secret_values import Values

REDACTED = "[redacted]"
"""The replacement for a secret."""

MAX_ATTRIBUTE = 1024
"""Maximum number of characters kept of a header, path or query string on a span."""

MAX_DEPTH = 100
"""Maximum number of levels of JSON that are searched; deeper values are replaced."""

_MESSAGE, _STACK = "exception.message", "exception.stacktrace"
"""See https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/#attributes."""

_CLASS = re.compile(r"(?:[A-Za-z_]\w{0,100}\.){0,10}[A-Z]\w{0,100}: ")
_JSON_START = re.compile(r'[\s\0]*[\[{"]')
_QUOTED_KEY = re.compile(r'"[\s\0]*:')


class Redactor:
    """Redactor of secrets, which are found by their keys and by their form.

    Args:
        keys: Keys that hold secrets, in any spelling; ``default`` stands for the built-in ones. See `Keys`.
        values: Regular expressions of secrets under any key; ``default`` stands for the built-in ones. See `Values`.
    """

    def __init__(self, keys: Iterable[str], values: Iterable[str] = (DEFAULT,)) -> None:
        self._keys = Keys(keys)
        self._values = Values(values)
        self._glance = secret_glance.Glance(self._keys, self._values)
        self.is_clean = self._glance.is_clean

    def matches(self, key: str) -> bool:
        """Return whether a key's value is, or may be, a secret."""
        return bool(self._keys.kind(key))

    def is_secret(self, key: str, value: Any) -> bool:
        """Return whether the value of a key is a secret."""
        return self._keys.is_secret(key, value)

    def value(self, key: str, value: str) -> str:
        """Return a key's value, redacted."""
        return REDACTED if self._keys.is_secret(key, value) else self.string(value)

    def query(self, query_string: str) -> str:
        """Return a query string with the values of secret parameters replaced; the rest is unchanged byte for byte."""
        return "&".join(self._parameter(part) for part in query_string.split("&"))

    def json(self, value: Any) -> Any:
        """Return a redacted copy of parsed JSON.

        Secrets are found at any depth, in text, and in text that is itself JSON. Values below 100 levels are always
        replaced.
        """
        return self._json(value, MAX_DEPTH)

    def text(self, text: str) -> str:
        """Return a text with all recognizable secrets replaced.

        A key is recognized in ``"key": value``, ``'key': value``, ``key=value``, a line of its own with ``key: value``,
        and the shapes in `secret_shapes`. If a value has no end, the rest of the text is replaced.
        """
        plain = text.replace("\0", "")  # it may be undeclared UTF-16
        spans = sorted(span for span in self._spans(plain) if span[0] < span[1])
        return _replaced(plain, spans) if spans else text

    def string(self, text: str) -> str:
        """Return a text that may be JSON, redacted."""
        return self._string(text, MAX_DEPTH)

    def message(self, text: str) -> str:
        """Return an exception's message, with or without the class name before it, redacted."""
        name = _CLASS.match(text)
        return self.string(name[0] + self.string(text[name.end() :]) if name else text)

    def exception(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the redacted attributes of an exception event; the stack trace repeats the message."""
        message, stack = (str(attributes.get(key, "")) for key in (_MESSAGE, _STACK))
        clean = self.message(message)
        if message and clean != message:
            stack = stack.replace(message.strip(), clean.strip())
        found = {**attributes, _MESSAGE: clean, _STACK: self.string(stack)}
        return {key: value for key, value in found.items() if key in attributes}

    def pieces(self, values: list[Any]) -> list[Any]:
        """Redact the chunks of a stream like `json`, and also the joined texts at the same place of all chunks.

        If a joined text contains a secret, the first chunk gets the whole redacted text and the others none. The values
        are changed in place.
        """
        for parts in _texts_by_place(values):
            text = "".join(container[key] for container, key in parts)
            if len(parts) > 1 and (clean := self._string(text, MAX_DEPTH)) != text:
                for container, key in parts:
                    container[key], clean = clean, ""
        redacted: list[Any] = self.json(values)
        return redacted

    def _spans(self, text: str) -> Iterable[tuple[int, int]]:
        keys = self._keys
        return itertools.chain(
            secret_text.spans(text, keys),
            self._values.spans(text),
            secret_shapes.in_options(text, keys),
            secret_shapes.in_tags(text, keys) if "<" in text else (),
            secret_shapes.in_tables(text, keys) if "\n" in text else (),
            secret_shapes.in_sections(text, keys) if "[" in text else (),
            secret_shapes.in_parts(text, keys) if "name=" in text else (),
            secret_shapes.in_messages(text, keys, secret_text.literal_end),
        )

    def _json(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value, depth)
        if not isinstance(value, (dict, list)):
            return value
        if not depth:
            return REDACTED
        if isinstance(value, list):
            return self._list(value, depth - 1)
        value = secret_objects.without_columns(value, self._keys, REDACTED)
        secrets = secret_objects.named_secrets(value, self._keys)
        return {
            self._key(key): REDACTED if key in secrets else self._item(key, item, value, depth - 1)
            for key, item in value.items()
        }

    def _list(self, values: list[Any], depth: int) -> list[Any]:
        hidden = secret_objects.after_names(values, self._keys)
        return [REDACTED if index in hidden else self._json(item, depth) for index, item in enumerate(values)]

    def _item(self, key: str, item: Any, beside: dict[str, Any], depth: int) -> Any:
        kind = self._keys.kind(key)
        if not kind:
            return self._json(item, depth)
        if isinstance(item, list) and kind != "always":
            return [REDACTED if is_secret(kind, each) else self._json(each, depth) for each in item]
        if is_secret(kind, item) and not secret_objects.is_ordinary(key, item, beside):
            return REDACTED
        return self._json(item, depth)

    def _key(self, key: str) -> str:
        """Return a key, redacted: JSON sent as a form is parsed as a key."""
        return self._string(key, MAX_DEPTH)

    def _string(self, text: str, depth: int) -> str:
        """Return a text that may be JSON, redacted; the same text if nothing in it was replaced."""
        if self.is_clean(text):
            return text
        if not _may_hold_json(text):
            return self.text(text)
        try:
            value = strict_json.parsed(text)
        except ValueError:
            return self.text(text)
        redacted = self._json(value, depth - 1) if depth else REDACTED
        return text if redacted == value else json.dumps(redacted, ensure_ascii=False)

    def _parameter(self, part: str) -> str:
        key, separator, _ = part.partition("=")
        name = unquote_plus(key)
        value = unquote_plus(part[len(key) + 1 :])
        if separator and '"' not in name and ";" not in name and self._keys.is_secret(name[:256], value):
            return f"{key}={REDACTED}"
        if self._is_clean_part(part):
            return part
        clean = self.text(part)
        return clean if '"' not in part and self._is_clean_part(clean) else REDACTED

    def _is_clean_part(self, part: str) -> bool:
        text = unquote_plus(part)
        return self.string(text) == text


class _AsItIs(Redactor):
    """A redactor that replaces nothing."""

    def __init__(self) -> None:
        super().__init__((), ())
        self.is_clean = lambda text: True

    def text(self, text: str) -> str:
        """Return the text."""
        return text

    def json(self, value: Any) -> Any:
        """Return the value."""
        return value

    def pieces(self, values: list[Any]) -> list[Any]:
        """Return the values."""
        return values


AS_IT_IS: Redactor = _AsItIs()
"""For bodies that are examined and not stored: a search for secrets takes most of the time that reading them takes."""


def _replaced(text: str, spans: list[tuple[int, int]]) -> str:
    """Return the text with each span replaced by `REDACTED`; overlapping spans are merged."""
    parts: list[str] = []
    kept = 0
    first, last = spans[0]
    for start, end in [*spans[1:], (len(text) + 1, 0)]:
        if start < last:
            last = max(last, end)
            continue
        parts += text[kept:first], REDACTED
        kept, first, last = last, start, end
    return "".join([*parts, text[kept:]])


def _may_hold_json(text: str) -> bool:
    if '"' not in text and "{" not in text and "[" not in text:  # most text
        return False
    return _JSON_START.match(text) is not None or _QUOTED_KEY.search(text) is not None


def _texts_by_place(values: list[Any]) -> Iterable[list[tuple[Any, Any]]]:
    """Return the texts of a stream's chunks as (container, key), grouped by place, in order."""
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
"""Keys that distinguish the chunks of several texts in streams of language models."""
