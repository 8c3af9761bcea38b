"""Formats of streams: how to separate events, lines or elements of an array."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlflow_middleware.capture import strict_json
from mlflow_middleware.capture.folds.ui_messages import piece_of_line
from mlflow_middleware.capture.streams import events

_LINE_END = rb"(?:\r\n|\n|\r(?!\n))"
_EVENT_END = re.compile(_LINE_END + _LINE_END)
_BETWEEN = re.compile(rb"\}\s{0,20},\s{0,20}(?=\{\s{0,20}\"candidates\")")
"""Separator between the elements of an array, as Gemini streams one; inside a string, its quotes would be escaped."""

LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-seq")
"""Media types of JSON lines."""


@dataclass(frozen=True, slots=True)
class Form:
    """A format of streams.

    Attributes:
        end: Returns the end of the first chunk that ends at or after a position; None if it has not ended yet.
        pieces: Parses data that consists of whole chunks.
    """

    end: Callable[[bytes | bytearray, int], int | None]
    pieces: Callable[[bytes], list[Any]]


def form_of(media_type: str, start: bytes) -> Form | None:
    """Return the format of a stream; None if unknown.

    Args:
        media_type: The lower-case media type, without parameters.
        start: The beginning of the stream.
    """
    if media_type == "text/event-stream":
        return EVENTS
    if media_type in LINES:
        return JSON_LINES
    if media_type == "application/json":
        return ARRAY if start.lstrip()[:1] == b"[" else JSON_LINES
    return DATA_LINES if media_type == "text/plain" else None


def _event_end(data: bytes | bytearray, at_least: int) -> int | None:
    found = _EVENT_END.search(data, max(0, at_least - 4))  # a separator may have begun before
    if found and found.end() < at_least:
        found = _EVENT_END.search(data, found.end())
    return found.end() if found else None


def _line_end(data: bytes | bytearray, at_least: int) -> int | None:
    return data.find(b"\n", max(0, at_least - 1)) + 1 or None


def _element_end(data: bytes | bytearray, at_least: int) -> int | None:
    found = _BETWEEN.search(data, max(0, at_least - 1))
    if found and found.end() < at_least:
        found = _BETWEEN.search(data, found.end())
    return found.end() if found else None


def data_lines(text: str) -> list[Any] | None:
    """Parse the older protocol of Vercel's SDK; return None if a text is something else."""
    if text[1:2] != ":":
        return None
    pieces = _data_lines(text.encode("utf-8", "replace"))
    return pieces if all(pieces) else None


def _parsed(text: str) -> Any:
    try:
        return strict_json.parsed(text)
    except ValueError:
        return None


def _all_parsed(texts: list[str]) -> list[Any]:
    """Parse many small texts at once; one by one if any of them is not JSON."""
    found = _parsed(f"[{','.join(texts)}]")
    return found if isinstance(found, list) else [_parsed(text) for text in texts]


def _events(data: bytes) -> list[Any]:
    return _all_parsed([event.data for event in events(data, cut=False) if event.data.lstrip()[:1] == "{"])


def _lines(data: bytes) -> list[Any]:
    texts = data.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
    return _all_parsed([text for each in texts if (text := each.strip(" \t\r\x1e"))])


def _data_lines(data: bytes) -> list[Any]:
    return [piece_of_line(line) for each in data.decode("utf-8", "replace").split("\n") if (line := each.rstrip("\r"))]


def _elements(data: bytes) -> list[Any]:
    text = data.decode("utf-8", "replace").strip().removeprefix("[").removesuffix("]").strip().strip(",")
    found = _parsed(f"[{text}]")
    return found if isinstance(found, list) else []


EVENTS = Form(_event_end, _events)
JSON_LINES = Form(_line_end, _lines)
DATA_LINES = Form(_line_end, _data_lines)
ARRAY = Form(_element_end, _elements)
