"""What a server stores of the app's spans so that it can be read again.

A tracking server takes text that is JSON of an object or array for just that, whatever it holds, and fails at each
search that meets what protobuf cannot write: more than 32 levels, an integer of more than 64 bits.
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
"""Levels of objects and arrays that are written as messages in each other: three for each, of 100 that parsers take."""

MAX_READABLE = 30
"""Levels that a server can give back: in its answers there are more messages around them."""

MAX_INTEGER = 2**63
"""Integers that a server can give back are smaller, and not smaller than minus this."""

_SHORT_INTEGER = 18
"""Characters of an integer that surely takes no more than 64 bits."""

_MAX_DIGITS = 4300
"""Digits of an integer that Python reads at most (``sys.get_int_max_str_digits``)."""

_MAX_NUMBER = 2**53
"""The largest whole number of tokens: servers sum them up, and add them to a column."""

_LONGEST = {
    "session.id": keys.MAX_METADATA,
    "gen_ai.conversation.id": keys.MAX_METADATA,
    keys.SPAN_TYPE: 500,
    keys.MODEL: 500,
    keys.PROVIDER: 500,
}
"""Attributes that a server stores in columns, and refuses all spans for if one is longer."""

_SHORT = 20
"""Characters of a text that fits everywhere, and is no number that does not."""

_NUMBERS = frozenset({keys.USAGE, keys.COST})
_COLUMNS = _NUMBERS | _LONGEST.keys()


class _Unreadable(Exception):
    """An integer that takes more than 64 bits."""


def as_sent(text: Any) -> Any:
    """What stands for a JSON text of a request's root in OTLP: for an object or array, the text itself.

    A tracking server takes text that is JSON of an object or array for just that (mlflow/tracing/otel/translation:
    ``sanitize_attributes``). Written as nested messages it would be slower to write, and for the server to read.
    """
    return text if _is_structure(text) else _of_text(decoded(text))


def value_of(key: str, text: Any, *, as_text: bool = False) -> Any:
    """What stands for an attribute in OTLP.

    Args:
        key: Its name.
        text: What the span has: a JSON text, or what else OpenTelemetry allows.
        as_text: Whether an object or array may go as text.
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
    """A JSON text of an attribute as `as_sent` may have it."""
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
    """A preview as MLflow shortens its own (mlflow/tracing/utils/truncation.py); PostgreSQL stores no longer ones."""
    if not text:
        return text
    text = text.replace("\0", "\ufffd")
    if len(text) <= keys.MAX_PREVIEW:  # the smaller of two limits
        return text
    longest = _get_max_length()
    return text if len(text) <= longest else text[: longest - 3] + "..."


def unquoted(text: Any) -> Any:
    """Undo what `value_of` does to text that looks like JSON, where no server does it; None for any other."""
    value = decoded(text)
    is_quoted = type(value) is str and value[:1] == '"' and _looks_like_what_is_unreadable(inner := decoded(value))
    return value if is_quoted and inner != value else None


def within_limits(value: Any, levels: int = MAX_NESTING) -> Any:
    """A value of JSON, with what lies too deep, and integers of more than 64 bits, as text."""
    if isinstance(value, dict | list) and not levels:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return [within_limits(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {key: within_limits(item, levels - 1) for key, item in value.items()}
    return str(value) if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER else value


def _of_column(key: str, text: Any, value: Any) -> Any:
    """What stands for an attribute that a server stores in columns, too: a span's type is text, for example."""
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
    """Numbers of tokens, or of their cost: what is none is left out."""
    if not isinstance(value, dict):
        return {}
    return {
        key: number
        for key, number in value.items()
        if isinstance(number, int | float) and math.isfinite(number) and abs(number) <= _MAX_NUMBER
    }


def _is_structure(text: Any) -> bool:
    """Whether a stored attribute is an object or array in JSON, without what may be half a surrogate pair."""
    return type(text) is str and text[:1] in ("{", "[") and "\\ud" not in text


def _of_text(value: Any) -> Any:
    """What stands for a text, which a server may take for JSON."""
    return _quoted(value) if type(value) is str and _looks_like_what_is_unreadable(value) else value


def _quoted(text: str) -> str:
    """A text of which a server takes the quotes away, and looks no further."""
    return json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False)


def _looks_like_what_is_unreadable(text: Any) -> bool:
    """Whether a server that takes a text for JSON fails, at once or later."""
    if type(text) is not str or text.lstrip()[:1] not in _STARTS:
        return False
    is_structure = text.lstrip()[:1] in ("{", "[")
    return _is_unreadable(text) if is_structure else len(text) > _MAX_DIGITS


_STARTS = frozenset("{[-0123456789")
"""What JSON begins with that may be too much for a server."""


def _is_unreadable(text: str) -> bool:
    """Whether JSON of an object or array nests too deeply, or has an integer that is too large."""
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
    """Whether a value of JSON has more levels of objects and arrays than that; ``text`` is its JSON."""
    if text.count("[") + text.count("{") <= levels:
        return False
    level = [value]
    for _ in range(levels + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return False
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
    return True
