"""Google's Gemini API: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.folds.base import Fold, index, mapping, sequence
from mlflow_middleware.capture.texts import Text, joined


class Gemini(Fold):
    """Fold of a stream's responses, each with a part of the content."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(limit)
        self._answer: dict[str, Any] = {}
        self._candidates: dict[int, dict[str, Any]] = {}

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """See `Fold`."""
        candidates = piece.get("candidates")
        return isinstance(candidates, list) and bool(candidates) and isinstance(candidates[0], dict)

    def add(self, piece: dict[str, Any]) -> None:
        """See `Fold`."""
        for candidate in map(mapping, sequence(piece.get("candidates"))):
            place = index(candidate.get("index", 0))
            known = self._candidates.setdefault(place, {"content": {"parts": []}})
            content = mapping(candidate.get("content") or {})
            for part in map(mapping, sequence(content.get("parts"))):
                self._add_part(known["content"]["parts"], part)
            known["content"].update({key: value for key, value in content.items() if key != "parts"})
            known.update({key: value for key, value in candidate.items() if key != "content"})
        self._answer.update({key: value for key, value in piece.items() if key != "candidates"})

    def _add_part(self, parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
        others = {key: value for key, value in part.items() if key != "text"}
        last = parts[-1] if parts else {}
        goes_on = isinstance(last.get("text"), Text) and last.get("thought") == part.get("thought")
        if "text" not in part:
            parts.append(others)
        elif goes_on and others.keys() <= {"thought", "thoughtSignature"}:
            self.grow(last, "text", part["text"])
            last.update(others)
        else:
            parts.append(others)
            self.grow(others, "text", part["text"])

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """See `Fold`."""
        candidates = [joined(self._candidates[place], clean) for place in sorted(self._candidates)]
        return {**self._answer, "candidates": candidates}
