"""Anthropic's Messages API: https://docs.anthropic.com/en/docs/build-with-claude/streaming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture import strict_json
from mlflow_middleware.capture.folds.base import Fold, index, mapping
from mlflow_middleware.capture.texts import joined

_DELTAS = {
    "text_delta": ("text", "text"),
    "input_json_delta": ("tool_use", "partial_json"),
    "thinking_delta": ("thinking", "thinking"),
}
"""Type of a delta -> type of its block, and key of the text."""


class Anthropic(Fold):
    """Fold of the events of one message."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._message: dict[str, Any] = {"role": "assistant"}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        return piece.get("type") in ("message_start", "content_block_start", "content_block_delta")

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        kind = piece.get("type")
        if kind == "content_block_delta":
            self._add_delta(self._blocks.setdefault(index(piece.get("index")), {}), mapping(piece.get("delta")))
        elif kind == "content_block_start":
            self._blocks[index(piece.get("index"))] = dict(mapping(piece.get("content_block")))
        elif kind == "message_start":
            self._message.update(mapping(piece.get("message", {})))
            self._usage.update(mapping(self._message.get("usage") or {}))
        elif kind == "message_delta":
            self._message.update(mapping(piece.get("delta") or {}))
            self._usage.update(mapping(piece.get("usage") or {}))
        elif kind == "error":
            self._message["error"] = piece.get("error")

    @property
    def parts(self) -> dict[Any, dict[str, Any]]:
        """See `Fold`."""
        return self._blocks

    def _add_delta(self, block: dict[str, Any], delta: dict[str, Any]) -> None:
        known = _DELTAS.get(str(delta.get("type")))
        if known:
            kind, key = known
            block.setdefault("type", kind)
            self.grow(block, key, delta.get(key), is_json=key == "partial_json")
        else:
            block.update({key: value for key, value in delta.items() if key != "type"})

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        content = [_block(self._blocks[place], clean) for place in sorted(self._blocks)]
        return {**self._message, "content": content, **({"usage": dict(self._usage)} if self._usage else {})}


def _block(block: dict[str, Any], clean: Callable[[str], str]) -> Any:
    """Return a content block, with a tool's input parsed; incomplete input stays text."""
    whole: dict[str, Any] = joined(block, clean)
    if "partial_json" in whole:
        partial = whole.pop("partial_json")
        try:
            whole["input"] = strict_json.parsed(partial) if partial else whole.get("input", {})
        except ValueError:
            whole["input"] = partial
    return whole
