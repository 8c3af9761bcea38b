"""Secrets in text that is no JSON, or JSON that is broken: found by the key before each ``:`` and ``=``.

Everything here looks at a character a bounded number of times, however the text is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_plus

_MAX_KEY = 300
"""Characters looked at before a separator."""

_SEPARATOR = re.compile(r"[:=]")
_SPACE = re.compile(r"\s*")
_YEK_ERAB = re.compile(r"[^\s\"'\\{},;&?=:<>()]+")
"""A bare key, read backwards from its separator: forwards, every character would be a possible start."""

_LINE_START = re.compile(r"[\s-]*\Z")
_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
_QUOTE = re.compile(r"\\*[\"']")
_QUOTE_OR_BRACKET = re.compile(r"[\"'\[\]{}]")
_AFTER_COLON = re.compile(r"[,}\]\r\n]|\Z")
_AFTER_EQUALS = re.compile(r"[&\s<>]|\Z")
_LINE_END = re.compile(r"[\r\n]|\Z")


def redacted(text: str, matches: Callable[[str], bool], replacement: str) -> str:
    """The text with ``replacement`` in place of each value whose key matches."""
    parts: list[str] = []
    kept = position = 0
    while separator := _SEPARATOR.search(text, position):
        position = separator.end()
        span = _secret(text, kept, separator.start(), matches)
        if span:
            parts += text[kept : span[0]], replacement
            kept = position = span[1]
    return "".join([*parts, text[kept:]])


def _secret(text: str, start: int, separator: int, matches: Callable[[str], bool]) -> tuple[int, int] | None:
    """Where the value after a separator begins and ends, if its key matches."""
    before = text[max(start, separator - _MAX_KEY) : separator].rstrip()
    after = _SPACE.match(text, separator + 1)
    value = after.end() if after else separator + 1
    if before[-1:] in ('"', "'"):
        return _value_span(text, value, _AFTER_COLON) if matches(_quoted_key(before)) else None
    bare = _YEK_ERAB.match(before[::-1])
    if not bare or not matches(unquote_plus(bare[0][::-1])):
        return None
    if text[separator] == "=":
        return _value_span(text, value if _opens(text, value) else _same_line(text, separator + 1), _AFTER_EQUALS)
    if _opens(text, value):
        return _value_span(text, value, _AFTER_COLON)
    return _header_span(text, separator + 1, before[: -bare.end()])


def _quoted_key(before: str) -> str:
    """The key whose closing quote ends ``before``; all of it where the opening quote is out of sight."""
    quote, body = before[-1], before[:-1]
    key = body.rstrip("\\")
    depth = len(body) - len(key)
    opening = len(key)
    while (opening := key.rfind(quote, 0, opening)) > 0:
        if _backslashes(key, opening, 0) <= depth:
            break
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), key[opening + 1 :])


def _opens(text: str, position: int) -> bool:
    return text[position : position + 1] in ("{", "[") or _QUOTE.match(text, position) is not None


def _same_line(text: str, position: int) -> int:
    """The position after blanks, which a form does not have, but a configuration file does."""
    while text[position : position + 1] in (" ", "\t"):
        position += 1
    return position


def _header_span(text: str, position: int, before: str) -> tuple[int, int] | None:
    """The rest of a line that reads ``key: value``, as in YAML or HTTP; a colon elsewhere is only prose."""
    line = before[max(before.rfind("\n"), before.rfind("\r")) + 1 :]
    if not _LINE_START.match(line):
        return None  # before the end is looked for: many keys in one long line would each look for it
    end = _LINE_END.search(text, position)
    stop = end.start() if end else len(text)
    return min(_same_line(text, position), stop), stop


def _value_span(text: str, position: int, delimiter: re.Pattern[str]) -> tuple[int, int]:
    """Where the value at a position begins and ends: inside its quotes, or with its brackets."""
    quote = _QUOTE.match(text, position)
    if quote:
        return quote.end(), _string_end(text, quote.end(), quote[0][-1], len(quote[0]) - 1)
    if text[position : position + 1] in ("{", "["):
        return position, _bracket_end(text, position)
    end = delimiter.search(text, position)
    return position, end.start() if end else len(text)


def _string_end(text: str, position: int, quote: str, depth: int) -> int:
    """Where the closing quote of a string stands, with its backslashes; the end of the text without one.

    ``depth`` backslashes stood before the opening quote: 0 in JSON, 1 in JSON inside a JSON string, then 3, 7.
    """
    start = position
    while (found := text.find(quote, position)) >= 0:
        run = _backslashes(text, found, max(start, position))
        if run < depth or (run - depth) // (depth + 1) % 2 == 0:
            return found - min(run, depth)
        position = found + 1
    return len(text)


def _bracket_end(text: str, position: int) -> int:
    """Where the bracket at a position is closed; the end of the text if it is not."""
    level = 0
    start = position
    while found := _QUOTE_OR_BRACKET.search(text, position):
        position = found.end()
        if found[0] in "[{":
            level += 1
        elif found[0] in "]}":
            level -= 1
            if level == 0:
                return position
        else:
            depth = _backslashes(text, found.start(), start)
            position = _string_end(text, position, found[0], depth)
            position = text.find(found[0], position) + 1 or len(text)
        start = position
    return len(text)


def _backslashes(text: str, position: int, start: int) -> int:
    """How many backslashes stand right before a position, as far back as ``start``."""
    count = 0
    while position - count > start and text[position - count - 1] == "\\":
        count += 1
    return count
