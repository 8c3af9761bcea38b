"""Text that grows part by part, in bounded memory: its beginning and its end are kept, what is between them counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from sys import getsizeof
from typing import Any

CONTEXT = 4096
"""Characters on the inner side of each end that are looked at for secrets, and not shown: a secret that begins before
the end that is kept would not be known for one, and neither would a part of one."""

_MANY = 64
"""Parts after which they become one: each is an object of 50 bytes besides its few characters."""

_MIN_KEPT = 4096
"""Characters of each end that are kept at least, if the limit allows so many."""

_TRIES = 3
"""Times that the first part of a text is shortened, so that the last one can be shown."""

_TOLD_BY = 100
"""Characters at its end by which the last part is known."""

_BREAK = re.compile(r"[\s\"'`,;.:!?)\]}\u3001\u3002\uff0c]")


class Text:
    """Collect the parts of a text; joining at each part takes quadratic time.

    Args:
        limit: Characters that are kept at most, half of them of the end; None keeps all.
        keeps_end: Whether the end says something without what is before it; JSON's does not.
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
            TypeError: It is no text.
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
        """Keep half as many characters from now on; returns whether that saves any."""
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
        """Whether something of it is not shown."""
        return bool(self._end) and not (self._keeps_end and self.size <= 2 * (self._keep or 0))

    @property
    def held(self) -> int:
        """Bytes that it takes, about."""
        return sum(map(getsizeof, self._start)) + sum(map(getsizeof, self._end)) + 200

    def joined(self, clean: Callable[[str], str] = str) -> str:
        """Return the text; where it is longer than the limit, its ends, and how much is left out between them.

        Args:
            clean: Replaces secrets.
        """
        start, end = "".join(self._start), "".join(self._end)
        if not self.is_cut:
            return start + end
        return cut_between(
            start, end[-self._longest_end :] if self._keeps_end else "", self.size, self._keep or 0, clean
        )


def cut_between(start: str, end: str, size: int, keep: int, clean: Callable[[str], str]) -> str:
    """Return the first and the last characters of a text, and how many of its ``size`` are left out between them.

    Both are looked at for secrets with `CONTEXT` characters more than are shown.
    """
    first, last = clean(start), shown_end(end, clean)
    first = first[: max(0, min(keep, len(first) - CONTEXT))]
    shown = _with_note(first, last, size)
    for _ in range(_TRIES):
        if not last or clean(shown).endswith(last[-_TOLD_BY:]):
            break
        first = first[:-CONTEXT]  # it ends inside of a secret, which all the rest would be taken for
        shown = _with_note(first, last, size)
    return shown


def _with_note(first: str, last: str, size: int) -> str:
    note = f" \u2026 [{max(0, size - len(first) - len(last)):,} characters left out]"
    return first + note + (f" \u2026 {last}" if last else "")


def shown_end(end: str, clean: Callable[[str], str]) -> str:
    """Return the end of a text, without secrets and without its first `CONTEXT` characters."""
    last = clean(end)
    last = last[CONTEXT + max(0, len(last) - len(end)) :]
    found = _BREAK.search(last)  # what goes on without one may be the end of anything
    return last[found.start() :].lstrip() if found else ""


def _append(parts: list[str], part: str, is_long: bool = False) -> bool:
    """Append a part; whether all became one."""
    parts.append(part)
    if len(parts) < _MANY and not is_long:
        return False
    parts[:] = ["".join(parts)]
    return True


def joined(value: Any, clean: Callable[[str], str] = str) -> Any:
    """Return the value with each collected text in it joined."""
    if isinstance(value, Text):
        return value.joined(clean)
    if isinstance(value, dict):
        return {key: joined(item, clean) for key, item in value.items()}
    return [joined(item, clean) for item in value] if isinstance(value, list) else value


def is_cut(value: Any) -> bool:
    """Return whether something of a text in a value is not kept."""
    if isinstance(value, Text):
        return value.is_cut
    if isinstance(value, dict):
        return any(map(is_cut, value.values()))
    return isinstance(value, list) and any(map(is_cut, value))


def weight(value: Any) -> int:
    """Bytes that a value takes, about, with all that is in it."""
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
