"""The base of the folds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.texts import Text, texts_in, weight

_MAX_INDEX = 1000
"""Upper bound of the index of a choice, tool call or content block; a higher one is rejected."""


class Fold:
    """Base of a fold, which assembles one response from its chunks as they arrive.

    Args:
        limit: Maximum number of characters that are kept of each text; None keeps all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._nameless = 0

    @staticmethod
    def knows(piece: dict[str, Any]) -> bool:
        """Return whether a chunk belongs to this protocol."""
        raise NotImplementedError

    def add(self, piece: dict[str, Any]) -> None:
        """Fold the next chunk.

        Raises:
            TypeError: A value in the chunk has a wrong type.
            ValueError: A value in the chunk is out of range.
        """
        raise NotImplementedError

    def whole(self, clean: Callable[[str], str] = str) -> dict[str, Any]:
        """Return the response, as far as it has arrived.

        Args:
            clean: Redacts texts that are too long to keep.
        """
        raise NotImplementedError

    @property
    def parts(self) -> dict[Any, dict[str, Any]]:
        """The repeated parts of the response, such as messages and tool results, in order."""
        return {}

    def make_room(self, most: int) -> bool:
        """Shrink to half of this many bytes, so that later chunks can be kept; return whether that fits the limit.

        Readable content goes last: first parts without text, then the middle of texts, then whole parts. The last part
        is kept, as it is still growing.
        """
        self._leave_out(most // 2, lambda part: not texts_in(part))
        texts = texts_in(vars(self))
        while texts and weight(vars(self)) > most // 2:
            texts = [text for text in texts if text.shrink()]
        self._leave_out(most // 2, bool)
        return weight(vars(self)) <= most

    def _leave_out(self, most: int, may_go: Callable[[dict[str, Any]], bool]) -> None:
        """Remove parts, the largest first."""
        parts, left = self.parts, weight(vars(self))
        weights = {key: weight(part) for key, part in list(parts.items())[:-1] if may_go(part)}
        for key in sorted(weights, key=lambda key: -weights[key]):
            if left <= most:
                return
            left -= weights[key]
            del parts[key]

    def new_key(self) -> str:
        """Return a new key for a part without one."""
        self._nameless += 1
        return f"#{self._nameless}"

    def grow(self, target: dict[str, Any], key: str, part: Any, *, is_json: bool = False) -> None:
        """Append a part to the text under a key."""
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
    """Return the value if it is an object; raise TypeError if not."""
    if not isinstance(value, dict):
        raise TypeError
    return value


def sequence(value: Any) -> list[Any]:
    """Return the value if it is an array, or an empty one for None; raise TypeError if not."""
    if not isinstance(value, list):
        if value is None:
            return []
        raise TypeError
    return value


def string(value: Any) -> str:
    """Return the value if it is text; raise TypeError if not."""
    if not isinstance(value, str):
        raise TypeError
    return value


def index(value: Any) -> int:
    """Return the value if it is an index below the limit; raise ValueError if not."""
    if type(value) is not int or not 0 <= value < _MAX_INDEX:
        raise ValueError
    return value
