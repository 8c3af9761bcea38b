"""Amazon Bedrock's ConverseStream, with its events as JSON, as an app relays them.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture import strict_json
from mlflow_middleware.capture.folds.base import Fold, index, mapping
from mlflow_middleware.capture.texts import joined

_EVENTS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")


class Converse(Fold):
    """Fold of the events of one message into the response that ``Converse`` would give."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._message: dict[str, Any] = {"role": "assistant"}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._rest: dict[str, Any] = {}

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        event = next((name for name in _EVENTS[:-1] if name in piece), "")
        return bool(event) and isinstance(piece[event], dict)

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        for name in _EVENTS:
            event = piece.get(name)
            if event is None:
                continue
            event = mapping(event)
            if name == "contentBlockDelta":
                self._add_delta(self._block(event), mapping(event.get("delta") or {}))
            elif name == "contentBlockStart":
                self._block(event).update(mapping(event.get("start") or {}))
            elif name == "messageStart":
                self._message.update(event)
            elif name in ("messageStop", "metadata"):
                self._rest.update(event)

    def _block(self, event: dict[str, Any]) -> dict[str, Any]:
        return self._blocks.setdefault(index(event.get("contentBlockIndex", 0)), {})

    def _add_delta(self, block: dict[str, Any], delta: dict[str, Any]) -> None:
        if "text" in delta:
            self.grow(block, "text", delta["text"])
        if "toolUse" in delta:
            self.grow(block.setdefault("toolUse", {}), "input", mapping(delta["toolUse"]).get("input"), is_json=True)
        if "reasoningContent" in delta:
            thought = block.setdefault("reasoningContent", {}).setdefault("reasoningText", {})
            for key, value in mapping(delta["reasoningContent"]).items():
                if key in ("text", "signature"):
                    self.grow(thought, key, value)

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        content = [_block(joined(self._blocks[place], clean)) for place in sorted(self._blocks)]
        return {"output": {"message": {**self._message, "content": content}}, **self._rest}


def _block(block: Any) -> Any:
    """Return a content block, with a tool's input parsed; incomplete input stays text."""
    tool = block.get("toolUse")
    if isinstance(tool, dict) and isinstance(tool.get("input"), str):
        try:
            return {**block, "toolUse": {**tool, "input": strict_json.parsed(tool["input"])}}
        except ValueError:
            return block
    return block
