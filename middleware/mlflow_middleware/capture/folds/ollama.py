"""Ollama's JSON lines from ``/api/chat`` and ``/api/generate``: https://docs.ollama.com/api/chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.folds.base import Fold, mapping, sequence
from mlflow_middleware.capture.texts import joined

_TEXTS = ("content", "thinking", "response")


class Ollama(Fold):
    """Fold of the lines of one response; the last line has the token counts."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._answer: dict[str, Any] = {}

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        is_one = isinstance(piece.get("done"), bool) and isinstance(piece.get("model"), str)
        return is_one and (isinstance(piece.get("message"), dict) or isinstance(piece.get("response"), str))

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        for key, value in piece.items():
            if key in _TEXTS:
                self.grow(self._answer, key, value)
            elif key == "message":
                self._add_message(self._answer.setdefault(key, {}), mapping(value))
            else:
                self._answer[key] = value

    def _add_message(self, message: dict[str, Any], part: dict[str, Any]) -> None:
        for key, value in part.items():
            if key in _TEXTS:
                self.grow(message, key, value)
            elif key == "tool_calls":
                message.setdefault(key, []).extend(sequence(value))
            else:
                message[key] = value

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        whole: dict[str, Any] = joined(self._answer, clean)
        return whole
