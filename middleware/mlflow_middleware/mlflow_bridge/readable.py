"""The encoding of span attributes in a form that a server can store and return.

A tracking server parses text that looks like a JSON object or array. It then fails at each search that returns a value
which protobuf cannot represent: more than 32 levels, or an integer of more than 64 bits.
"""

from __future__ import annotations

import json
import math
from typing import Any

from mlflow.tracing.utils.truncation import _get_max_length

from mlflow_middleware.capture.garbage import few_collections
from mlflow_middleware.capture.strict_json import MAX_NESTING
from mlflow_middleware.mlflow_bridge.span_attributes import decoded
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.contents import LARGE

MAX_MESSAGES = 26
"""Maximum number of levels encoded as nested messages: each level takes three of the 100 that parsers accept."""

MAX_READABLE = 30
"""Maximum number of levels that a server can return: its responses have more messages around them."""

MAX_INTEGER = 2**63
"""The limit of integers that a server can return: from minus this value up to, but not including, this value."""

_SHORT_INTEGER = 18
"""Maximum length of an integer that certainly fits into 64 bits, in characters."""

_MAX_DIGITS = 4300
"""Maximum number of digits of an integer that Python parses (``sys.get_int_max_str_digits``)."""

_MAX_NUMBER = 2**53
"""The largest number of tokens: servers sum the numbers up, and add them to a column."""

_LONGEST = {
    "session.id": keys.MAX_METADATA,
    "gen_ai.conversation.id": keys.MAX_METADATA,
    keys.SPAN_TYPE: 500,
    keys.MODEL: 500,
    keys.PROVIDER: 500,
}
"""The maximum lengths of attributes that a server stores in columns; it refuses all spans if one is exceeded."""

_SHORT = 20
"""Maximum length of a text that fits everywhere and cannot be a number that does not, in characters."""

_NUMBERS = frozenset({keys.USAGE, keys.COST})
_COLUMNS = _NUMBERS | _LONGEST.keys()


class _Unreadable(Exception):
    """An integer does not fit into 64 bits."""


def as_sent(text: Any) -> Any:
    """Return the OTLP value for a JSON text of a request's root: the text itself for an object or array.

    A tracking server parses text that is a JSON object or array (mlflow/tracing/otel/translation:
    ``sanitize_attributes``). Nested messages would be slower to encode, and slower for the server to parse.
    """
    return text if _is_structure(text) else _of_text(decoded(text))


def value_of(key: str, text: Any, *, as_text: bool = False) -> Any:
    """Return the OTLP value for an attribute.

    Args:
        key: The attribute's name.
        text: The span's value: a JSON text, or any other value that OpenTelemetry allows.
        as_text: Whether an object or array may be sent as text.
    """
    try:
        if as_text and key not in _NUMBERS and _is_structure(text) and not _is_unreadable(text):
            return text
        value = decoded(text)
        if type(value) is str and len(value) <= _SHORT and key not in _NUMBERS:
            return value
        if key in _COLUMNS:
            found = _of_column(key, text, value)
            if key in _NUMBERS:
                return text if as_text and found == value else found
            value = found
        if isinstance(value, str):
            return _of_text(value)
        if isinstance(value, dict | list):
            return _of_structure(text, value, as_text)
        return value
    except RecursionError:
        return _quoted(str(text))


def readable(key: str, text: Any) -> Any:
    """Return a JSON text of an attribute in a form that `as_sent` accepts."""
    try:
        value = decoded(text)
        if key in _COLUMNS and (found := _of_column(key, text, value)) != value:
            return json.dumps(found)
        if not isinstance(value, dict | list) or not _is_unreadable(text):
            return text
        return json.dumps(within_limits(value), ensure_ascii=False)
    except RecursionError:
        return _quoted(str(text))


def preview(text: str | None) -> str | None:
    """Shorten a preview like MLflow (mlflow/tracing/utils/truncation.py); PostgreSQL stores no longer ones."""
    if not text:
        return text
    text = text.replace("\0", "\ufffd")
    if len(text) <= keys.MAX_PREVIEW:  # the smaller of two limits
        return text
    longest = _get_max_length()
    return text if len(text) <= longest else text[: longest - 3] + "..."


def unquoted(text: Any) -> Any:
    """Restore a text that `value_of` has quoted, if no server does so; return None for other values."""
    value = decoded(text)
    is_quoted = type(value) is str and value[:1] == '"' and _looks_unreadable(inner := decoded(value))
    return value if is_quoted and inner != value else None


def within_limits(value: Any, levels: int = MAX_NESTING) -> Any:
    """Return a JSON value in which levels that are too deep, and integers of more than 64 bits, are text."""
    if isinstance(value, dict | list) and not levels:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return [within_limits(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {key: within_limits(item, levels - 1) for key, item in value.items()}
    return str(value) if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER else value


def _of_column(key: str, text: Any, value: Any) -> Any:
    """Return the value of an attribute that a server also stores in a column, such as a span's type, which is text."""
    if key in _NUMBERS:
        return _finite(value)
    if key == keys.SPAN_TYPE and not (value is None or isinstance(value, str)):
        value = str(text)
    return value[: _LONGEST[key]] if isinstance(value, str) else value


def _of_structure(text: Any, value: dict[str, Any] | list[Any], as_text: bool) -> Any:
    if type(text) is not str:
        return value
    if not _is_unreadable(text):
        return text if _nests_deeper(value, text, MAX_MESSAGES) else value
    changed = within_limits(value)
    return json.dumps(changed, ensure_ascii=False) if as_text and _is_structure(text) else changed


def _finite(value: Any) -> dict[str, Any]:
    """Return numbers of tokens or their cost, without values that are not valid numbers."""
    if not isinstance(value, dict):
        return {}
    return {
        key: number
        for key, number in value.items()
        if isinstance(number, int | float) and math.isfinite(number) and abs(number) <= _MAX_NUMBER
    }


def _is_structure(text: Any) -> bool:
    """Return whether a stored attribute is a JSON object or array, and surely has no half of a surrogate pair."""
    return type(text) is str and text[:1] in ("{", "[") and "\\ud" not in text


def _of_text(value: Any) -> Any:
    """Return the value for a text that a server may parse as JSON."""
    return _quoted(value) if type(value) is str and _looks_unreadable(value) else value


def _quoted(text: str) -> str:
    """Return a quoted text: a server removes the quotes, and does not parse the rest."""
    return json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False)


def _looks_unreadable(text: Any) -> bool:
    """Return whether a server that parses a text as JSON fails, at once or later."""
    if type(text) is not str or text.lstrip()[:1] not in _STARTS:
        return False
    is_structure = text.lstrip()[:1] in ("{", "[")
    return _is_unreadable(text) if is_structure else len(text) > _MAX_DIGITS


_STARTS = frozenset("{[-0123456789")
"""The first characters of JSON values that may exceed a server's limits."""

_HARMLESS = bytes(set(range(256)) - set(b"{[0123456789"))
"""Bytes that neither open a level of a JSON text nor are digits."""


def _is_unreadable(text: str) -> bool:
    """Return whether a JSON object or array nests too deeply, or contains an integer that is too large."""
    if len(text.encode("utf-8", "replace").translate(None, _HARMLESS)) <= _SHORT_INTEGER:
        return False  # too few brackets and digits for either
    if len(text) <= LARGE:
        return _is_too_much(text)
    with few_collections():
        return _is_too_much(text)


def _is_too_much(text: str) -> bool:
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError:
        return False
    except (RecursionError, ValueError, _Unreadable):
        return True
    return _nests_deeper(value, text, MAX_READABLE)


def _small(digits: str) -> int:
    if len(digits) > _SHORT_INTEGER and not -MAX_INTEGER <= int(digits) < MAX_INTEGER:
        raise _Unreadable(digits)
    return int(digits)


_decoder = json.JSONDecoder(parse_int=_small)


def _nests_deeper(value: Any, text: str, levels: int) -> bool:
    """Return whether a JSON value has more levels of objects and arrays than given; ``text`` is its JSON."""
    if text.count("[") + text.count("{") <= levels:
        return False
    level = [value]
    for _ in range(levels + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return False
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
    return True
