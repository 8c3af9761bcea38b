"""What the protocols have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.texts import Text, texts_in, weight

_MAX_INDEX = 1000
"""A choice, tool call or content block with a higher index is considered a mistake."""


class Fold:
    """Assembles one answer from its pieces, as they come.

    Args:
        limit: Characters that are kept of each text; None keeps all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._nameless = 0

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """Return whether a piece is one of this protocol."""
        raise NotImplementedError

    def add(self, piece: dict[str, Any]) -> None:
        """Take the next piece.

        Raises:
            TypeError: Something in it has another type than it should.
            ValueError: Something in it has another value than it may.
        """
        raise NotImplementedError

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """Return the answer, as far as it has come.

        Args:
            clean: Replaces secrets in texts that are too long to be kept.
        """
        raise NotImplementedError

    @property
    def parts(self) -> dict[Any, dict[str, Any]]:
        """The parts of the answer of which there may be many, such as messages and results of tools, in their order."""
        return {}

    def make_room(self, most: int) -> bool:
        """Do with half of that much, so that what is still to come can be kept; returns whether all takes no more.

        What people read goes last: parts without a text, then some of each text, then whole ones. The last part grows.
        """
        self._leave_out(most // 2, lambda part: not texts_in(part))
        texts = texts_in(vars(self))
        while texts and weight(vars(self)) > most // 2:
            texts = [text for text in texts if text.shrink()]
        self._leave_out(most // 2, bool)
        return weight(vars(self)) <= most

    def _leave_out(self, most: int, may_go: Callable[[dict[str, Any]], bool]) -> None:
        """Leave out parts, the largest ones first."""
        parts, left = self.parts, weight(vars(self))
        weights = {key: weight(part) for key, part in list(parts.items())[:-1] if may_go(part)}
        for key in sorted(weights, key=lambda key: -weights[key]):
            if left <= most:
                return
            left -= weights[key]
            del parts[key]

    def new_key(self) -> str:
        """Return a key for a part that has none."""
        self._nameless += 1
        return f"#{self._nameless}"

    def grow(self, target: dict[str, Any], key: str, part: Any, *, is_json: bool = False) -> None:
        """Append to the text under a key."""
        text = target.get(key)
        if not isinstance(text, Text):
            if part is None:
                target.setdefault(key, None)
                return
            started = text
            text = target[key] = Text(self.limit, keeps_end=not is_json)
            if started is not None:
                text.add(started)
        if part is not None:
            text.add(part)


def mapping(value: Any) -> dict[str, Any]:
    """Return the value, which has to be an object."""
    if not isinstance(value, dict):
        raise TypeError
    return value


def sequence(value: Any) -> list[Any]:
    """Return the value, which has to be an array or nothing."""
    if not isinstance(value, list):
        if value is None:
            return []
        raise TypeError
    return value


def string(value: Any) -> str:
    """Return the value, which has to be text."""
    if not isinstance(value, str):
        raise TypeError
    return value


def index(value: Any) -> int:
    """Return the value, which has to be a place in a list."""
    if type(value) is not int or not 0 <= value < _MAX_INDEX:
        raise ValueError
    return value
