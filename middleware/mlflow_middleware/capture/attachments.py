"""Files in chat messages, stored as attachments, as MLflow does for the app's own spans (mlflow/entities/span.py)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

Attach = Callable[[str, bytes], str | None]
"""Stores a file, given its media type and content; returns its replacement, or None to leave the file in place."""

_SIGNS = ("base64", "b64_json", "inline", 'audio"', '"bytes"', "image_generation_call")
"""Texts of which at least one occurs in every JSON with a file."""

_MAX_DEPTH = 100
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+=-]+)*;base64,")
_AUDIO = {"mp3": "audio/mpeg"}


def may_be_in(text: str) -> bool:
    """Return whether JSON may hold a file, judged by its text alone."""
    return any(map(text.__contains__, _SIGNS))


def without_files(value: Any, attach: Attach, depth: int = _MAX_DEPTH) -> Any:
    """Return the value with the files in it attached; the same object if there are none.

    Args:
        value: Parsed JSON.
        attach: Stores a file.
        depth: Maximum number of levels of nesting that are searched.
    """
    if isinstance(value, str):
        return _data_uri(value, attach) if value.startswith("data:") else value
    if not depth or not isinstance(value, (dict, list)):
        return value
    if isinstance(value, list):
        items = [without_files(item, attach, depth - 1) for item in value]
        return items if _differ(items, value) else value
    known = _with_known_file(value, attach)
    items = [without_files(item, attach, depth - 1) for item in known.values()]
    return dict(zip(known, items, strict=True)) if known is not value or _differ(items, known.values()) else value


def _differ(items: list[Any], before: Any) -> bool:
    return any(item is not old for item, old in zip(items, before, strict=True))


def _data_uri(text: str, attach: Attach) -> str:
    match = _DATA_URI.match(text)
    return (match and _attached(text[match.end() :], match[1], attach)) or text


def _with_known_file(value: dict[str, Any], attach: Attach) -> dict[str, Any]:
    """Return an object of Anthropic, Gemini, OpenAI or Bedrock with its file attached."""
    for key, kind_of in _HOLDERS.items():
        held = value.get(key)
        if isinstance(held, dict) and (ref := _attached(held.get("data"), kind_of(held), attach)):
            return {**value, key: {**held, "data": ref}}
    if ref := _attached(value.get("b64_json"), "image/png", attach):
        return {**value, "b64_json": ref}
    if value.get("type") == "image_generation_call":
        ref = _attached(value.get("result"), _image(value.get("output_format", "png")), attach)
        return {**value, "result": ref} if ref else value
    image = value.get("image")
    if not isinstance(image, dict) or not isinstance(source := image.get("source"), dict):
        return value
    ref = _attached(source.get("bytes"), _image(image.get("format", "png")), attach)
    return {**value, "image": {**image, "source": {**source, "bytes": ref}}} if ref else value


def _image(kind: Any) -> str | None:
    return f"image/{kind}" if isinstance(kind, str) else None


def _source(held: dict[str, Any]) -> Any:
    return held.get("media_type", "image/png") if held.get("type") == "base64" else None


def _inline(held: dict[str, Any]) -> Any:
    return held.get("mimeType", held.get("mime_type"))


def _input_audio(held: dict[str, Any]) -> Any:
    kind = held.get("format", "wav")
    return _AUDIO.get(kind, f"audio/{kind}") if isinstance(kind, str) else None


_HOLDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "source": _source,
    "inlineData": _inline,
    "inline_data": _inline,
    "input_audio": _input_audio,
    "audio": lambda held: "audio/wav",
}
"""Key of an object that holds a file as ``data`` -> function that returns the file's media type."""


def _attached(data: Any, content_type: Any, attach: Attach) -> str | None:
    if not isinstance(data, str) or not data or not isinstance(content_type, str):
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return attach(content_type, content) if content else None
