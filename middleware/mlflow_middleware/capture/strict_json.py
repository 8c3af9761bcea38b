"""Strict JSON for traces, from unchecked bodies: text that any parser accepts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

_MAX_INTEGER = 2**63
_MAX_DIGITS = 20
"""Maximum number of characters of a 64-bit integer, with its sign."""

_MAX_DEPTH = 500
"""Maximum number of open brackets in cut JSON that is completed."""

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|(?P<open>\\?\Z))|[\[\]{}:,]|[^\s"\[\]{}:,]+', re.DOTALL)
_PARTIAL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u[0-9a-fA-F]{0,3})?\Z")


def parsed(text: str) -> Any:
    """Parse JSON into values that strict JSON can hold.

    NaN, infinities and integers beyond 64 bits become text.

    Raises:
        ValueError: The text is not JSON, or is nested too deeply.
    """
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parsed_as_it_is(text: str) -> Any:
    """Parse an object or array whose text can be stored unchanged: `written` would differ only in spaces.

    Raises:
        ValueError: The text is not JSON, or must be rewritten.
    """
    if text[:1] not in ("{", "[") or "\\u" in text or "\n" in text or text.count("{") + text.count("[") > MAX_NESTING:
        raise ValueError("to be written anew")
    value, end = _plain_decoder.raw_decode(text)
    if end != len(text):
        raise ValueError("more than one value")
    return value


def written(value: Any) -> tuple[Any, str]:
    """Return a value as a trace can store it, and its JSON.

    Lone surrogates become U+FFFD; objects that JSON does not support, and values that are nested too deeply, become
    text.

    Raises:
        ValueError: The value contains itself.
    """
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError):  # set by a hook: parsed bodies contain only JSON
        value = parsed(json.dumps(value, ensure_ascii=False, default=str))
        text = _encoder.encode(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        value = json.loads(text)
    if text.count("{") + text.count("[") > MAX_NESTING and (flat := shallow(value)) != value:
        return flat, _encoder.encode(flat)
    return value, text


MAX_NESTING = 24
"""Maximum number of levels of objects and arrays in a trace. Each needs three levels of messages in MLflow's OTLP, and
protobuf parsers fail beyond 100, so that the server would reject the trace."""


def shallow(value: Any, levels: int = MAX_NESTING) -> Any:
    """Return a value with everything below this many levels converted to JSON text."""
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return [shallow(item, levels - 1) for item in value]
    return {key: shallow(item, levels - 1) for key, item in value.items()}


def completed(text: str, *, with_partial: bool = True) -> str:
    """Complete truncated JSON: close its open strings and brackets.

    A last key without a value is left out, and so is a last number or literal, which may be incomplete.

    Args:
        text: The beginning of the JSON.
        with_partial: Whether to keep an incomplete last string.

    Raises:
        ValueError: The text is nested too deeply.
    """
    closing: list[str] = []
    kept, tail, previous = 0, "", ""
    for match in _TOKEN.finditer(text):
        part = match[0]
        is_key = closing[-1:] == ["}"] and previous != ":"
        if match["open"] is not None:
            if not is_key and with_partial:
                kept, tail = match.start(), _PARTIAL_ESCAPE.sub(r"\1", part) + '"'
        elif part == ",":
            kept = match.start()
        elif part in "[{]}":
            _nest(closing, part)
            kept = match.end()
        elif part[0] == '"' and not is_key:
            kept = match.end()
        previous = part
    return text[:kept] + tail + "".join(reversed(closing))


def _nest(closing: list[str], bracket: str) -> None:
    """Update the stack of brackets to close."""
    if bracket in "[{":
        closing.append("]" if bracket == "[" else "}")
    elif closing:
        closing.pop()
    if len(closing) > _MAX_DEPTH:
        raise ValueError("nested too deeply")


def _integer(digits: str) -> int | str:
    number = int(digits) if len(digits) <= _MAX_DIGITS else _MAX_INTEGER
    return number if -_MAX_INTEGER <= number < _MAX_INTEGER else digits


def _float(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _unchanged(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Wrap a parser of numbers or constants to raise ValueError if it would return text."""

    def read_unchanged(digits: str) -> Any:
        value = read(digits)
        if isinstance(value, str):
            raise ValueError(digits)
        return value

    return read_unchanged


decoder = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=str)
"""The decoder of `parsed`."""

_plain_decoder = json.JSONDecoder(
    parse_int=_unchanged(_integer), parse_float=_unchanged(_float), parse_constant=_unchanged(str)
)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
