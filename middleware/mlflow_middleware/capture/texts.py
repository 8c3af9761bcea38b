"""Text that grows in parts, in bounded memory: its beginning and end are kept, the middle is only counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from sys import getsizeof
from typing import Any

CONTEXT = 4096
"""Characters next to the gap that are searched for secrets but not shown: a secret that crosses the boundary of the
kept text would not be recognized."""

_MANY = 64
"""Number of parts after which they are joined: each has an overhead of 50 bytes."""

_MIN_KEPT = 4096
"""Minimum number of characters kept of the beginning and of the end, if the limit allows."""

_TRIES = 3
"""Maximum number of attempts to shorten the beginning of a text so that its end can be shown."""

_TOLD_BY = 100
"""Characters at the end of the text that identify it."""

_BREAK = re.compile(r"[\s\"'`,;.:!?)\]}\u3001\u3002\uff0c]")


class Text:
    """A text collected from parts; joining it at each part would take quadratic time.

    Args:
        limit: Maximum number of characters that are kept, half of them at the end; None keeps all.
        keeps_end: Whether the end is useful without the middle; that of JSON is not.
    """

    __slots__ = ("_end", "_fresh", "_keep", "_keeps_end", "_room", "_start", "size")

    def __init__(self, limit: int | None = None, *, keeps_end: bool = True) -> None:
        self._start: list[str] = []
        self._end: list[str] = []
        self._keep = limit and max(1, limit // 2)
        self._room = self._keep and self._keep + CONTEXT
        self._keeps_end = keeps_end
        self._fresh = 0
        self.size = 0

    def add(self, part: Any) -> None:
        """Append a part.

        Raises:
            TypeError: The part is not text.
        """
        if not isinstance(part, str):
            raise TypeError
        self.size += len(part)
        if self._room is None:
            self._start.append(part)
            return
        if self._room > 0:
            first = part[: self._room]
            self._room -= len(first)
            _append(self._start, first)
            part = part[len(first) :]
        if part:
            self._fresh += len(part)
            if _append(self._end, part, self._fresh > self._longest_end):
                self._end[0] = self._end[0][-self._longest_end :]
                self._fresh = 0

    def shrink(self) -> bool:
        """Halve the number of characters to keep; return whether that saves any."""
        if self._keep is None or self._keep < 2 * _MIN_KEPT or self.size <= self._keep + 2 * CONTEXT:
            return False
        self._keep //= 2
        longest = self._longest_end
        start = "".join(self._start)
        end = (start[longest:] + "".join(self._end))[-longest:]
        self._start, self._room = [start[:longest]], max(0, longest - len(start))
        self._end, self._fresh = [end] if end else [], 0
        return True

    @property
    def _longest_end(self) -> int:
        return (self._keep or 0) + CONTEXT

    @property
    def is_cut(self) -> bool:
        """Whether a part of the text is not shown."""
        return bool(self._end) and not (self._keeps_end and self.size <= 2 * (self._keep or 0))

    @property
    def held(self) -> int:
        """Approximate size in bytes."""
        return sum(map(getsizeof, self._start)) + sum(map(getsizeof, self._end)) + 200

    def joined(self, clean: Callable[[str], str] = str) -> str:
        """Return the text; if it is too long, its beginning and end, with a note on how much is left out.

        Args:
            clean: Redacts a text.
        """
        start, end = "".join(self._start), "".join(self._end)
        if not self.is_cut:
            return start + end
        return cut_between(
            start, end[-self._longest_end :] if self._keeps_end else "", self.size, self._keep or 0, clean
        )


def cut_between(start: str, end: str, size: int, keep: int, clean: Callable[[str], str]) -> str:
    """Return the beginning and end of a text of this ``size``, with a note on how many characters are left out.

    Both are searched for secrets with `CONTEXT` more characters than are shown.
    """
    first, last = clean(start), shown_end(end, clean)
    first = first[: max(0, min(keep, len(first) - CONTEXT))]
    shown = _with_note(first, last, size)
    for _ in range(_TRIES):
        if not last or clean(shown).endswith(last[-_TOLD_BY:]):
            break
        first = first[:-CONTEXT]  # it ends inside a secret, which would seem to include the rest
        shown = _with_note(first, last, size)
    return shown


def _with_note(first: str, last: str, size: int) -> str:
    note = f" \u2026 [{max(0, size - len(first) - len(last)):,} characters left out]"
    return first + note + (f" \u2026 {last}" if last else "")


def shown_end(end: str, clean: Callable[[str], str]) -> str:
    """Return the end of a text, redacted and without its first `CONTEXT` characters."""
    last = clean(end)
    last = last[CONTEXT + max(0, len(last) - len(end)) :]
    found = _BREAK.search(last)  # without a break, it may be the tail of a secret
    return last[found.start() :].lstrip() if found else ""


def _append(parts: list[str], part: str, is_long: bool = False) -> bool:
    """Append a part; return whether all parts were joined."""
    parts.append(part)
    if len(parts) < _MANY and not is_long:
        return False
    parts[:] = ["".join(parts)]
    return True


def joined(value: Any, clean: Callable[[str], str] = str) -> Any:
    """Return a value with all collected texts in it joined."""
    if isinstance(value, Text):
        return value.joined(clean)
    if isinstance(value, dict):
        return {key: joined(item, clean) for key, item in value.items()}
    return [joined(item, clean) for item in value] if isinstance(value, list) else value


def is_cut(value: Any) -> bool:
    """Return whether any collected text in a value is cut."""
    if isinstance(value, Text):
        return value.is_cut
    if isinstance(value, dict):
        return any(map(is_cut, value.values()))
    return isinstance(value, list) and any(map(is_cut, value))


def weight(value: Any) -> int:
    """Return the approximate size of a value with all that it contains, in bytes."""
    return sum(each.held if isinstance(each, Text) else getsizeof(each) for each in _all_in(value))


def texts_in(value: Any) -> list[Text]:
    """Return the collected texts in a value."""
    return [each for each in _all_in(value) if isinstance(each, Text)]


def _all_in(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        each = stack.pop()
        yield each
        if isinstance(each, dict):
            stack += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            stack += each
