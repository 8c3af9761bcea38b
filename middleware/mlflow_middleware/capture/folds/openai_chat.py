"""OpenAI's chat completions and legacy completions: https://platform.openai.com/docs/api-reference/chat-streaming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.folds.base import Fold, index, mapping, sequence, string
from mlflow_middleware.capture.texts import joined

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")


class Chat(Fold):
    """Fold of the chunks of a completion."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._answer: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        choices = piece.get("choices")
        if piece.get("object") in ("chat.completion.chunk", "text_completion"):
            return isinstance(choices, list)
        return isinstance(choices, list) and bool(choices) and isinstance(choices[0], dict) and "delta" in choices[0]

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        for choice in map(mapping, sequence(piece.get("choices"))):
            place = index(choice.get("index", 0))
            known = self._choices.get(place)
            if known is None:
                known = self._choices[place] = {"index": place, "message": {}, "finish_reason": None}
            if "text" in choice:
                self.grow(known, "text", choice["text"])
            else:
                known["message"].setdefault("role", "assistant")
                self._add_delta(known["message"], mapping(choice.get("delta") or {}))
            known["finish_reason"] = choice.get("finish_reason") or known["finish_reason"]
        self._answer.update({key: value for key, value in piece.items() if key != "choices" and value is not None})

    def _add_delta(self, message: dict[str, Any], delta: dict[str, Any]) -> None:
        for key, value in delta.items():
            if key == "content" and isinstance(value, list):
                self._add_content(message, value)
            elif key in _TEXTS:
                self.grow(message, key, value)
            elif key == "audio" and isinstance(value, dict):
                self._add_audio(message.setdefault(key, {}), value)
            elif key == "tool_calls":
                calls = message.setdefault(key, {})
                for call in map(mapping, sequence(value)):
                    self._add_call(calls.setdefault(index(call.get("index", 0)), {}), call)
            elif key == "function_call":
                self._add_function(message.setdefault(key, {}), mapping(value or {}))
            elif value is not None:
                message[key] = value

    def _add_content(self, message: dict[str, Any], content: list[Any]) -> None:
        """Add content of Mistral's reasoning models, in which thoughts are separate from text."""
        for part in map(mapping, content):
            if part.get("type") == "thinking":
                for thought in map(mapping, sequence(part.get("thinking"))):
                    self.grow(message, "thinking", thought.get("text"))
            else:
                self.grow(message, "content", string(part.get("text")))

    def _add_audio(self, known: dict[str, Any], audio: dict[str, Any]) -> None:
        """Add the transcript of audio, but not the audio itself."""
        if "transcript" in audio:
            self.grow(known, "transcript", audio["transcript"])
        known.update({key: value for key, value in audio.items() if key not in ("transcript", "data")})

    def _add_call(self, known: dict[str, Any], call: dict[str, Any]) -> None:
        own = ("index", "function")
        known.update({key: value for key, value in call.items() if key not in own and value is not None})
        if "function" in call:
            self._add_function(known.setdefault("function", {}), mapping(call["function"] or {}))

    def _add_function(self, known: dict[str, Any], function: dict[str, Any]) -> None:
        for key, value in function.items():
            if key == "arguments":
                self.grow(known, key, value, is_json=True)
            elif value is not None:
                known[key] = value

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        choices = [joined(_listed(self._choices[place]), clean) for place in sorted(self._choices)]
        kind = self._answer.get("object")
        return {**self._answer, "object": kind if kind == "text_completion" else "chat.completion", "choices": choices}


def _listed(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice with its tool calls as a list, in order."""
    message = choice["message"]
    if not message:  # legacy completions
        return {key: value for key, value in choice.items() if key != "message"}
    if "tool_calls" not in message:
        return choice
    calls = message["tool_calls"]
    return {**choice, "message": {**message, "tool_calls": [calls[place] for place in sorted(calls)]}}
