"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Table:
    """A table whose columns are as wide as their longest cell so far, two spaces apart.

    Args:
        heads: The headings of the columns.
    """

    def __init__(self, heads: Sequence[str]) -> None:
        self._heads: Sequence[str] | None = heads
        self._widths = [len(head) for head in heads]

    def add(self, rows: Sequence[Sequence[str]]) -> Iterator[str]:
        """Yield the lines of more rows, after the headings and a rule at the first call."""
        self._widths = [
            max(map(len, column)) for column in zip(["-" * width for width in self._widths], *rows, strict=True)
        ]
        if self._heads:
            yield self._line(self._heads)
            yield self._line(["-" * width for width in self._widths])
            self._heads = None
        yield from map(self._line, rows)

    def _line(self, cells: Sequence[str]) -> str:
        return "  ".join(map(str.ljust, cells, self._widths)).rstrip()
