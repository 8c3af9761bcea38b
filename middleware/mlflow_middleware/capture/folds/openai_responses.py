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
}


class Responses(Fold):
    """Assemble the events of one response."""

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
            self._items[_item_key(item.get("id"), piece, f"#{len(self._items)}")] = dict(item)
        elif kind in _DELTAS:
            key = _DELTAS[kind]
            known = self._items.setdefault(_item_key(piece.get("item_id"), piece), {})
            self.grow(known, key, piece.get("delta"), is_json=key == "arguments")
        elif kind is None:
            self._rest.update(piece)
        elif kind == "error":
            self._rest["error"] = piece

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        if self._last is not None:
            return self._last
        return {**self._rest, "output": [_output_item(item, clean) for item in self._items.values()]}


def _item_key(item_id: Any, piece: dict[str, Any], otherwise: str = "") -> str:
    """Return what identifies an item; the result of a tool may have no id."""
    key = item_id if item_id is not None else piece.get("output_index")
    return str(key) if isinstance(key, (str, int)) else otherwise


def _output_item(item: dict[str, Any], clean: Callable[[str], str]) -> Any:
    """Return an item as it was sent whole, or assembled from its pieces."""
    text = item.get("text")
    if isinstance(text, Text):
        message = {"type": "message", "role": "assistant", **item}
        message.pop("text")
        return {**joined(message, clean), "content": [{"type": "output_text", "text": text.joined(clean)}]}
    return joined(item if "type" in item else {"type": "function_call", **item}, clean)
