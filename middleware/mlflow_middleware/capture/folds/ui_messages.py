"""UI messages of Vercel's AI SDK, as server-sent events (since version 5) or as lines of the older data stream.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture import strict_json
from mlflow_middleware.capture.folds.base import Fold, mapping, string
from mlflow_middleware.capture.texts import joined

_KNOWN = ("text-start", "reasoning-start", "tool-input-start", "tool-input-available", "start-step")
_TEXTS = {f"{kind}-{step}": kind for kind in ("text", "reasoning") for step in ("start", "delta")}
_LINE = re.compile(r"([0-9a-k]):(.*)", re.DOTALL)


class UiMessage(Fold):
    """Fold of one message into the form that the SDK uses in the page."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._message: dict[str, Any] = {"role": "assistant"}
        self._parts: dict[str, dict[str, Any]] = {}
        self._metadata: dict[str, Any] = {}

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        kind = piece.get("type")
        if kind in ("text-delta", "reasoning-delta"):
            return isinstance(_delta(piece), str)
        return kind in _KNOWN or (kind == "start" and "messageId" in piece)

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        kind = piece.get("type")
        if not isinstance(kind, str):
            raise TypeError
        if kind in _TEXTS:
            part = self._part(f"{_TEXTS[kind]} {piece.get('id')}", {"type": _TEXTS[kind], "text": ""})
            self.grow(part, "text", "" if kind.endswith("-start") else string(_delta(piece)))
        elif kind.startswith("tool-"):
            self._add_tool(piece)
        elif kind == "error":
            self._message["error"] = piece.get("errorText")
        elif kind.startswith(("data-", "source", "file")):
            self._part(self.new_key(), piece)
        if "messageId" in piece:
            self._message["id"] = piece["messageId"]
        for key in ("finishReason", "usage"):
            if piece.get(key) is not None:
                self._message[key] = piece[key]
        if "messageMetadata" in piece:
            self._metadata.update(mapping(piece["messageMetadata"] or {}))

    @property
    def parts(self) -> dict[Any, dict[str, Any]]:
        """See `Fold`."""
        return self._parts

    def _part(self, key: str, part: dict[str, Any]) -> dict[str, Any]:
        return self._parts.setdefault(key, part)

    def _add_tool(self, piece: dict[str, Any]) -> None:
        key = string(piece.get("toolCallId"))
        part = self._part(f"tool {key}", {"type": "dynamic-tool", "toolCallId": key})
        if "toolName" in piece:
            part["type"] = f"tool-{piece['toolName']}"
        if "inputTextDelta" in piece:
            self.grow(part, "inputText", piece["inputTextDelta"], is_json=True)
        part.update({name: piece[name] for name in ("input", "output", "errorText") if name in piece})
        if "input" in piece:
            part.pop("inputText", None)

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        metadata = {"metadata": self._metadata} if self._metadata else {}
        return {**self._message, "parts": joined(list(self._parts.values()), clean), **metadata}


def _delta(piece: dict[str, Any]) -> Any:
    """Return the text of a delta in a UI message, a full stream, or a full stream of version 4."""
    return piece.get("delta", piece.get("text", piece.get("textDelta")))


def piece_of_line(line: str) -> dict[str, Any] | None:
    """Convert a line of the older protocol to an event of the newer one; return None if it is not such a line."""
    match = _LINE.fullmatch(line)
    if not match:
        return None
    try:
        value = strict_json.parsed(match[2])
    except ValueError:
        return None
    code = match[1]
    if code in ("0", "g"):
        return {"type": _BY_CODE[code], "delta": value} if isinstance(value, str) else None
    if code in ("9", "a", "b", "c", "d", "e", "f"):
        return {"type": _BY_CODE[code], **_renamed(value)} if isinstance(value, dict) else None
    if code == "3":
        return {"type": "error", "errorText": value}
    return {"type": f"data-{code}", "data": value}


_BY_CODE = {
    "0": "text-delta",
    "g": "reasoning-delta",
    "9": "tool-input-available",
    "a": "tool-output-available",
    "b": "tool-input-start",
    "c": "tool-input-delta",
    "d": "finish",
    "e": "finish-step",
    "f": "start-step",
}
_NEW_NAMES = {"args": "input", "result": "output", "argsTextDelta": "inputTextDelta"}


def _renamed(value: dict[str, Any]) -> dict[str, Any]:
    return {_NEW_NAMES.get(key, key): item for key, item in value.items() if key != "type"}
