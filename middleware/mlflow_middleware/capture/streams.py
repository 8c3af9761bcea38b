"""Streamed responses: server-sent events and JSON lines, reduced to the result that a caller would see.

The format of events: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mlflow_middleware.capture.folds import fold_for
from mlflow_middleware.capture.folds.base import mapping
from mlflow_middleware.capture.texts import CONTEXT

MAX_EVENTS = 1000
"""Maximum number of events or lines that are kept of a stream that cannot be assembled."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_EVENT_END = re.compile(r"(?:\r\n|\n|\r(?!\n)){2}")


class Event(NamedTuple):
    """A server-sent event: its name, ``"message"`` by default, and its data."""

    name: str
    data: Any


def events(data: bytes, cut: bool) -> list[Event]:
    """Parse server-sent events; their data stays text.

    A last event without a blank line after it is dropped if the stream is cut. Otherwise it counts, since many servers
    omit the blank line.
    """
    lines = _LINE_END.split(data.decode("utf-8", "replace").removeprefix("\ufeff"))
    found: list[Event] = []
    name = ""
    texts: list[str] = []
    for line in lines if cut else [*lines, ""]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if texts:
                found.append(Event(name or "message", "\n".join(texts)))
            name, texts = "", []
        elif field == "data":
            texts.append(value)
        elif field == "event":
            name = value
    return found


def read_events(
    data: bytes, cut: bool, parse: Callable[[str], Any], redact: Callable[[list[Any]], list[Any]] = list
) -> tuple[Any, bool]:
    """Read a stream of events.

    Args:
        data: The stream, or its beginning.
        cut: Whether ``data`` is only the beginning.
        parse: Parses an event's data.
        redact: Redacts events that are not assembled.

    Returns:
        The assembled response of a language model, otherwise a list of the events; and whether some were left out.
    """
    parsed = [Event(name, parse(text)) for name, text in events(data, cut) if text.strip() != "[DONE]"]
    pieces = [event.data for event in parsed if event.data != ""]  # empty data keeps connections alive
    answer = assembled(pieces)
    if answer is None and pieces and isinstance(pieces[-1], str):
        answer = assembled(pieces[:-1])  # the stream broke off inside an event
    if answer is not None:
        return answer, False
    kept = parsed[:MAX_EVENTS]
    values = zip([event.name for event in kept], redact([event.data for event in kept]), strict=True)
    plain = [data if name == "message" else {"event": name, "data": data} for name, data in values]
    return plain, len(parsed) > MAX_EVENTS


def assembled(pieces: list[Any]) -> dict[str, Any] | None:
    """Assemble a language model's response from its chunks; return None if they are something else."""
    fold = fold_for(pieces)
    if fold is None:
        return None
    try:
        for piece in pieces:
            fold.add(mapping(piece))
        return fold.whole()
    except (TypeError, ValueError, RecursionError):  # malformed: kept as it arrived
        return None


def read_lines(text: str, cut: bool, parse: Callable[[str], Any]) -> tuple[list[Any], bool]:
    """Return the values of JSON lines, and whether some were left out; drop an incomplete last line."""
    lines = text.split("\n")
    if cut:
        lines.pop()
    stripped = [line for each in lines if (line := each.strip(" \t\r\x1e"))]
    return [parse(line) for line in stripped[:MAX_EVENTS]], len(stripped) > MAX_EVENTS


def last_of(
    text: str, are_events: bool, parse: Callable[[str], Any], redact: Callable[[list[Any]], list[Any]]
) -> list[Any]:
    """Return the last values of a stream, after a marker that others are left out.

    Args:
        text: The end of the stream. Values in its first `CONTEXT` characters only serve to recognize secrets.
        are_events: True for events, False for lines.
        parse: Parses an event's data, or a line.
        redact: Redacts the values.
    """
    position = _value_start(text, 0, are_events)
    after = _value_start(text, position + CONTEXT, are_events)
    before, shown = (
        [parse(each) for each in _texts(part, are_events)] for part in (text[position:after], text[after:])
    )
    kept = redact([*before, *shown])[len(before) :][-MAX_EVENTS // 2 :]
    return [LEFT_OUT, *kept]


LEFT_OUT = "\u2026 [left out] \u2026"
"""Marker between the first and the last values of a stream."""


def _value_start(text: str, position: int, are_events: bool) -> int:
    """Return the position of the first value after a position."""
    found = (_EVENT_END if are_events else _LINE_END).search(text, position)
    return found.end() if found else len(text)


def _texts(text: str, are_events: bool) -> list[str]:
    if are_events:
        return [
            event.data for event in events(text.encode("utf-8", "replace"), cut=False) if event.data.strip() != "[DONE]"
        ]
    return [line for each in text.split("\n") if (line := each.strip(" \t\r\x1e"))]
