"""Secrets in text that is not JSON, or in broken JSON: found by the key before each ``:`` and ``=``.

Every character is examined a bounded number of times, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_plus

from mlflow_middleware.capture.secret_keys import Keys, Kind, is_made_by_machine, is_secret

_WHOLE: tuple[Kind, ...] = ("always", "text")
"""Kinds of keys whose value is a secret whatever it looks like."""

_MAX_KEY = 300
"""Maximum number of characters that are examined before a separator."""

_SEPARATOR = re.compile(r"[:=]|%3[Dd]")
_SPACE = re.compile(r"\s*")
_REVERSED_KEY = re.compile(r"[^\s\"'`\\{},;&?=:<>()]+")
"""A bare key, matched backwards from its separator: forwards, every character would be a possible start."""

_TWO_WORDS = re.compile(r"([A-Za-z]{2,20}[ \t](?i:key|code|string|card|number|url))\**\Z")
"""A key of two words, as people write it."""

_LINE_START = re.compile(r"[\s>*+#/|-]*\Z")
_ESCAPE = re.compile(r"\\+u([0-9a-fA-F]{4})")
_QUOTE = re.compile(r"\\*[\"']")
_AFTER_TEXT = re.compile(r"[\s),;\]}+.]|\Z")
_TRIPLE = re.compile(r"\"\"\"|'''")
_PREFIX = re.compile(r"[rbfuRBFU]{1,2}(?=[\"'])")
_QUOTE_BEFORE = re.compile(r"(\\*)([\"'`])\Z")
_QUOTE_OR_BRACKET = re.compile(r"[\"'\[\]{}]")
_AFTER_COLON = re.compile(r"[,}\]\r\n]|\Z")
_AFTER_EQUALS = re.compile(r"[&\s<>]|;(?=\s?[\w .-]{1,40}=)|\Z")
_AFTER_ENCODED = re.compile(r"[&\s<>\"']|%26|\Z")
_AFTER_WORD = re.compile(r"[\s,;\"'`(){}\[\]<>]|\Z")
_LINE_END = re.compile(r"[\r\n]|\Z")
_INDENT = re.compile(r"[ \t]*")
_BLOCK = re.compile(r"[|>][0-9+-]{0,3}[ \t]*(?:#.*)?|(?:&\S+|!\S+|#.*)?")
"""The text after a YAML key whose value is in the lines below."""

_TYPE = re.compile(
    r"[A-Z]\w{1,60} \| None(?: = None)?[,)]?|"
    r"(?:typing\.)?(?:Optional|Annotated|Union|List|list|Sequence|Dict|dict|Mapping|set|tuple)\[[^\"'0-9\n]{0,200}"
    r"|(?:str|bytes|int|SecretStr|string|String|text|boolean|bool|null|None|any|Any|varchar|TEXT)"
    r"(?: ?\| ?(?:null|None|undefined))?(?: ?= ?(?:None|null|\.\.\.|Field\(.{0,200}|\"\"|''))?[,;)]*",
)
_EXPRESSION = re.compile(
    r"(?:await |new )?(?:[A-Za-z_]\w{0,60}\.){0,6}[A-Za-z_]{3,60}\("
    r"|(?:self|cls|os|process|settings|config|args|request|req|env)\.[A-Za-z_]|(?:os\.)?environ\["
    r"|[a-z_][A-Za-z_]{0,60}\[[\w:.\"'-]{1,60}\]"
    r"|(?:Bearer|Basic|Token) (?:<[A-Za-z _-]{1,40}>|\$\{?[A-Z_]{3,}(?![A-Za-z0-9]))"
    r"|YOUR_[A-Z_]{1,40}(?![A-Za-z0-9])|\$[0-9]\b"
    r"|\$\{[A-Z_]|\$[A-Z_]{3,}(?![A-Za-z0-9])|\$\(|\{\{|<[A-Za-z _-]{1,40}>|%(?:s|r|d|\([a-z_]+\)s)"
    r"|(?:None|null|true|false|True|False)\b"
)
"""Code that refers to a secret without containing it."""

_TUPLE = re.compile(r"\(\s{0,20}[rbfu]?[\"'][^()]{0,1000}\)?")
"""A tuple of user and password: ``auth=('bob', '…')``."""

_SHORT = re.compile(r"\\*[\"']?((?:[0-9][ -]?){12,19}|[^\s\"'\\,;&<>{}\[\]()]{1,400})")
"""A candidate value for keys whose value is a secret only if it looks like one."""

_NAME = re.compile(r"[A-Za-z_]+[ \t]*(?=[,}\])\r\n]|\Z)")
_IDENTIFIER = re.compile(r"[A-Za-z_]{4,60}(?=[\s,;)}]|\Z)")
_STATEMENT = re.compile(r"[A-Za-z_]+[ \t]*(?=[,;}\])\r\n]|\Z)")
_NO_WORD = re.compile(r"[a-z]+|[A-Za-z_.\[\]|<>(,)]+")
_PROSE = re.compile(r"(?:[A-Za-z][a-z'\u2019-]*[,.;:!?)]*[ \t]+){2}[A-Za-z(]")
"""Prose: more words in a row than any header has."""


def spans(text: str, keys: Keys) -> Iterator[tuple[int, int]]:
    """Yield the spans of the secrets in a text."""
    position = 0
    kept = 0
    while separator := _SEPARATOR.search(text, position):
        position = separator.end()
        found = _secret(text, kept, separator.start(), keys)
        if found and found[0] < found[1]:
            yield found
            kept = position = max(found[1], position)


def _secret(text: str, start: int, separator: int, keys: Keys) -> tuple[int, int] | None:
    """Return the span of the value after a separator, if it is a secret."""
    before = text[max(start, separator - _MAX_KEY) : separator].rstrip()
    if text[separator] == "=" and before[-1:] in (":", "?"):  # as in makefiles and Go
        before = before[:-1].rstrip()
    elif text.startswith(":=", separator):
        return None
    if before[-1:] in ('"', "'"):
        kind = keys.kind(_quoted_key(before))
        return _after_quoted_key(text, separator, kind) if kind else None
    bare = _REVERSED_KEY.match(before[::-1])
    kind = keys.kind(unquote_plus(bare[0][::-1])) if bare else ""
    if not bare:
        return None
    key = bare[0][::-1]
    if text[separator] == "%":  # a URL inside another one
        return _encoded_span(text, separator + 3, kind) if kind else None
    if not kind and (two := _TWO_WORDS.search(before)) and keys.kind(two[1]) == "always":
        kind, key = "always", two[0]
    if not kind:
        return None
    if text[separator] == "=":
        return _after_equals(text, separator, before, kind)
    return _after_colon(text, separator, key, before[: -len(key)], kind)


def _after_quoted_key(text: str, separator: int, kind: Kind) -> tuple[int, int] | None:
    value = _value(text, separator + 1 + (text[separator + 1 : separator + 2] == ">"))
    if prefix := _PREFIX.match(text, value):
        value = prefix.end()
    if kind not in _WHOLE:
        return _short_span(text, value, kind)
    if not _opens(text, value) and (_NAME.match(text, value) or _EXPRESSION.match(text, value)):
        return None
    return _value_span(text, value, _AFTER_COLON)


def _after_equals(text: str, separator: int, before: str, kind: Kind) -> tuple[int, int] | None:
    following = text[separator + 1 : separator + 2]
    if following == "=" or before[-1:] in ("~", "!"):
        return None  # a comparison, or a package's version
    if following == ">":
        separator += 1
    value = _value(text, separator + 1)
    if kind not in _WHOLE:
        return _short_span(text, value, kind)
    if prefix := _PREFIX.match(text, value):
        value = prefix.end()
    if _opens(text, value):
        return None if _closes(text, separator, value) else _value_span(text, value, _AFTER_EQUALS)
    value = _same_line(text, separator + 1)
    if pair := _TUPLE.match(text, value):
        return pair.span()
    is_spaced = text[separator - 1 : separator] == " "  # as in code, rarely in a connection string
    word = _IDENTIFIER.match(text, value)
    if word and before.endswith(word[0]):  # ``self.token = token``
        return None
    if _EXPRESSION.match(text, value) or ("(" in before and (_STATEMENT if is_spaced else _NAME).match(text, value)):
        return None
    return _value_span(text, value, _AFTER_EQUALS)


def _after_colon(text: str, separator: int, key: str, before: str, kind: Kind) -> tuple[int, int] | None:
    value = _value(text, separator + 1)
    if kind not in _WHOLE:
        return _short_span(text, value, kind)
    if quote := _QUOTE_BEFORE.search(before):  # a whole header in quotes, as for curl
        end = _string_end(text, separator + 1, quote[2], len(quote[1]))
        value = min(_same_line(text, separator + 1), end)
        return None if _is_prose_or_code(text, value, end, key) else (value, end)
    if _opens(text, value):
        return None if _closes(text, separator, value) else _value_span(text, value, _AFTER_COLON)
    line = before[max(before.rfind("\n"), before.rfind("\r")) + 1 :]
    if _LINE_START.match(line):
        return _header_span(text, separator + 1, line, key)
    if "{" in line and before.rstrip()[-1:] in ("{", ","):
        if _NAME.match(text, value) or _EXPRESSION.match(text, value):
            return None
        return _value_span(text, value, _AFTER_COLON)
    return _word_span(text, separator + 1, key)


def _encoded_span(text: str, position: int, kind: Kind) -> tuple[int, int] | None:
    """Return the span of the value after an encoded ``=``, if it is a secret."""
    end = _AFTER_ENCODED.search(text, position)
    stop = end.start() if end else len(text)
    return (position, stop) if kind in _WHOLE or is_secret(kind, text[position : position + 400]) else None


def _short_span(text: str, position: int, kind: Kind) -> tuple[int, int] | None:
    """Return the span of the value at a position, if it looks like a secret."""
    found = _SHORT.match(text, position)
    if not (found and is_secret(kind, found[1])) or _EXPRESSION.match(text, position):
        return None
    return found.span(1)


def _is_prose_or_code(text: str, start: int, stop: int, key: str) -> bool:
    """Return whether the text after a key and a colon is a sentence, a placeholder, or code."""
    if _TYPE.fullmatch(text, start, stop) or _EXPRESSION.match(text, start, stop) or text[start : start + 1] == "{":
        return True
    return not key.lower().strip("*_").startswith(("pass", "pwd")) and _PROSE.match(text, start, stop) is not None


def literal_end(text: str, position: int) -> int:
    """Return the end of a value in quotes, in brackets, or before a comma."""
    return _value_span(text, position, _AFTER_COLON)[1]


def _quoted_key(before: str) -> str:
    """Return the key whose closing quote ends ``before``; all of it if the opening quote is out of range."""
    quote, body = before[-1], before[:-1]
    key = body.rstrip("\\")
    depth = len(body) - len(key)
    opening = len(key)
    while (opening := key.rfind(quote, 0, opening)) > 0:
        if _backslashes(key, opening, 0) <= depth:
            break
    return _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), key[opening + 1 :])


def _value(text: str, position: int) -> int:
    """Return the position of the value, on this or a later line."""
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _opens(text: str, position: int) -> bool:
    return text[position : position + 1] in ("{", "[") or _QUOTE.match(text, position) is not None


def _closes(text: str, separator: int, position: int) -> bool:
    """Return whether a quote closes the string that contains the key, as in ``input("Password: ")``."""
    quote = _QUOTE.match(text, position)
    if quote is None or not _AFTER_TEXT.match(text, quote.end()):
        return False
    line = text[max(text.rfind("\n", 0, separator) + 1, separator - _MAX_KEY) : separator]
    return line.count(quote[0][-1]) % 2 == 1


def _same_line(text: str, position: int) -> int:
    """Return the position after spaces and tabs, which configuration files have before a value."""
    blank = _INDENT.match(text, position)
    return blank.end() if blank else position


def _header_span(text: str, position: int, line: str, key: str) -> tuple[int, int] | None:
    """Return the span of the value in a line ``key: value``, as in YAML or HTTP, or of the lines below it."""
    end = _LINE_END.search(text, position)
    stop = end.start() if end else len(text)
    start = min(_same_line(text, position), stop)
    if _BLOCK.fullmatch(text, start, stop):
        return _lines_below(text, stop, len(line) - len(line.lstrip(" \t")))
    return None if _is_prose_or_code(text, start, stop, key) else (start, stop)


def _lines_below(text: str, position: int, indent: int) -> tuple[int, int] | None:
    """Return the span of the more deeply indented lines below a YAML key; list items may have its indentation."""
    start = position = _value(text, position) if text[position : position + 1] else position
    line = text.rfind("\n", 0, start) + 1
    line = max(line, text.rfind("\r", line, start) + 1)
    end = line
    while line < len(text):
        first = _same_line(text, line)
        stop = _LINE_END.search(text, line)
        following = stop.end() if stop else len(text)
        is_inside = first - line > indent or (first - line == indent and text[first : first + 2] == "- ")
        if not is_inside and first != (stop.start() if stop else len(text)):
            break
        if is_inside:
            end = stop.start() if stop else len(text)
        line = max(following, line + 1)
    return (start, end) if end > start else None


def _word_span(text: str, position: int, key: str) -> tuple[int, int] | None:
    """Return the span of the word after a colon in mid-line, if it is hardly a natural word."""
    start = _same_line(text, position)
    end = _AFTER_WORD.search(text, start)
    stop = end.start() if end else len(text)
    word = text[start:stop].rstrip(".!?:")
    if start == position and not any(mark in key for mark in "-_"):
        return None
    is_name = any(mark in key for mark in "-_") or key.lower().startswith(("pass", "pwd"))
    if not word or _NO_WORD.fullmatch(word) or not (is_name or is_made_by_machine(word)):
        return None
    return start, start + len(word)


def _value_span(text: str, position: int, delimiter: re.Pattern[str]) -> tuple[int, int]:
    """Return the span of the value at a position, without its quotes, or including its brackets."""
    triple = _TRIPLE.match(text, position)
    if triple and (end := text.find(triple[0], triple.end())) >= 0:
        return triple.end(), end
    quote = _QUOTE.match(text, position)
    if quote:
        return quote.end(), _string_end(text, quote.end(), quote[0][-1], len(quote[0]) - 1)
    if text[position : position + 1] in ("{", "["):
        return position, _bracket_end(text, position)
    end_of_value = delimiter.search(text, position)
    return position, end_of_value.start() if end_of_value else len(text)


def _string_end(text: str, position: int, quote: str, depth: int) -> int:
    """Return the position of a string's closing quote, including its backslashes; the end of the text if missing.

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
    """Return the position after the closing bracket; the end of the text if missing."""
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
    """Return the number of backslashes directly before a position, as far back as ``start``."""
    count = 0
    while position - count > start and text[position - count - 1] == "\\":
        count += 1
    return count
