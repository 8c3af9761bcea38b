"""OpenAI's Responses API, and MLflow's ``ResponsesAgent``.

https://platform.openai.com/docs/api-reference/responses-streaming,
https://mlflow.org/docs/latest/genai/serving/responses-agent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.folds.base import Fold, mapping
from mlflow_middleware.capture.texts import Text, joined

_LAST = ("response.completed", "response.incomplete", "response.failed")
_ITEMS = ("response.output_item.added", "response.output_item.done")
_DELTAS = {
    "response.output_text.delta": "text",
    "response.function_call_arguments.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
    "response.code_interpreter_call_code.delta": "code",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}
"""Type of event -> key of its text in an item that was never completed."""

_KINDS = {
    "refusal": "message",
    "reasoning": "reasoning",
    "input": "custom_tool_call",
    "code": "code_interpreter_call",
}
"""Key of a text -> type of an item for which only deltas arrived."""


class Responses(Fold):
    """Fold of the events of one response."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._items: dict[str, dict[str, Any]] = {}
        self._rest: dict[str, Any] = {}
        self._last: dict[str, Any] | None = None

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        kind = piece.get("type")
        return isinstance(kind, str) and kind.startswith("response.")

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        kind = piece.get("type")
        if self._last is not None:
            return
        if kind in _LAST and "response" in piece:
            self._last = mapping(piece["response"])
        elif kind in _ITEMS:
            item = mapping(piece.get("item", {}))
            self._items[_item_key(item.get("id"), piece) or self.new_key()] = dict(item)
        elif kind in _DELTAS:
            key = _DELTAS[kind]
            known = self._items.setdefault(_item_key(piece.get("item_id"), piece), {})
            self.grow(known, key, piece.get("delta"), is_json=key == "arguments")
        elif kind is None:
            self._rest.update(piece)
        elif kind == "error":
            self._rest["error"] = piece

    @property
    def parts(self) -> dict[Any, dict[str, Any]]:
        """See `Fold`."""
        return self._items

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        if self._last is not None:
            return self._last
        return {**self._rest, "output": [_output_item(item, clean) for item in self._items.values()]}


def _item_key(item_id: Any, piece: dict[str, Any]) -> str:
    """Return the key of an item; empty if it has none, as a tool's result may."""
    key = item_id if item_id is not None else piece.get("output_index")
    return str(key) if isinstance(key, (str, int)) else ""


def _output_item(item: dict[str, Any], clean: Callable[[str], str]) -> Any:
    """Return an item as sent in one event, or assembled from its deltas."""
    text = item.get("text")
    if isinstance(text, Text):
        message = {"type": "message", "role": "assistant", **item}
        message.pop("text")
        return {**joined(message, clean), "content": [{"type": "output_text", "text": text.joined(clean)}]}
    kind = next((kind for key, kind in _KINDS.items() if key in item), "function_call")
    return joined({"type": kind, **item}, clean)
