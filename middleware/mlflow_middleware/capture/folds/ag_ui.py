"""AG-UI, the protocol between agents and user interfaces: https://docs.ag-ui.com/concepts/events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.folds.base import Fold, mapping, sequence, string
from mlflow_middleware.capture.texts import joined, weight

_KINDS = ("RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CHUNK", "TOOL_CALL_START")
_TEXTS = ("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CHUNK")
_CALLS = ("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_CHUNK")
_RESULT = ("toolCallId", "content")
_THOUGHTS = ("THINKING_TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_CHUNK")


class AgUi(Fold):
    """Fold of a run's events into its messages."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._messages: dict[str, dict[str, Any]] = {}
        self._calls: dict[str, dict[str, Any]] = {}
        self._rest: dict[str, Any] = {}
        self._last = ""

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        return piece.get("type") in _KINDS

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        kind = piece.get("type")
        if kind in _TEXTS:
            message = self._message(piece.get("messageId") or self._last, piece.get("role") or "assistant")
            self.grow(message, "content", piece.get("delta", ""))
        elif kind in _CALLS:
            self._add_call(piece)
        elif kind in _THOUGHTS:
            self.grow(self._rest, "thinking", piece.get("delta"))
        elif kind == "TOOL_CALL_RESULT":
            key = string(piece.get("messageId") or self.new_key())
            self._messages[key] = {"id": key, "role": "tool", **{name: piece.get(name) for name in _RESULT}}
        elif kind == "MESSAGES_SNAPSHOT":
            self._rest["snapshot"] = sequence(piece.get("messages"))
        elif kind in ("RUN_STARTED", "RUN_FINISHED"):
            self._rest.update({key: value for key, value in piece.items() if key not in ("type", "timestamp", "input")})
        elif kind == "RUN_ERROR":
            self._rest["error"] = piece.get("message")
        elif kind in ("CUSTOM", "RAW"):
            self._rest.setdefault("usage", _usage(piece.get("value", piece.get("event"))))
        elif kind == "STATE_SNAPSHOT":
            self._rest["state"] = piece.get("snapshot")

    @property
    def parts(self) -> dict[Any, dict[str, Any]]:
        """See `Fold`."""
        return self._messages

    def make_room(self, most: int) -> bool:
        """See `Fold`."""
        super().make_room(most)
        kept = {id(call) for message in self._messages.values() for call in message.get("toolCalls", ())}
        self._calls = {key: call for key, call in self._calls.items() if id(call) in kept}
        return weight(vars(self)) <= most

    def _message(self, key: Any, role: Any) -> dict[str, Any]:
        self._last = string(key)
        return self._messages.setdefault(self._last, {"id": self._last, "role": string(role)})

    def _add_call(self, piece: dict[str, Any]) -> None:
        key = piece.get("toolCallId")
        if key is None and self._calls:
            key = next(reversed(self._calls))
        call = self._calls.get(string(key))
        if call is None:
            call = self._calls[string(key)] = {"id": key, "type": "function", "function": {}}
            parent = self._message(piece.get("parentMessageId") or self._last, "assistant")
            parent.setdefault("toolCalls", []).append(call)
        if "toolCallName" in piece:
            call["function"]["name"] = piece["toolCallName"]
        self.grow(call["function"], "arguments", piece.get("delta", ""), is_json=True)

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        rest: dict[str, Any] = joined({key: value for key, value in self._rest.items() if value is not None}, clean)
        snapshot = rest.pop("snapshot", None)
        messages = joined(list(self._messages.values()), clean)
        return {**rest, "messages": messages or snapshot or []}


def _usage(value: Any) -> Any:
    usage = value.get("usage") if isinstance(value, dict) else None
    return mapping(usage) if usage else None
