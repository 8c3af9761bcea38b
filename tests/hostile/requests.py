"""Hostile requests: counts, sizes, nesting and tiny pieces that no ordinary client sends, and some servers pass on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MANY = 200_000
"""The number of headers that uvicorn with httptools accepts."""


@dataclass
class Counted:
    """Headers that count how many of them are read.

    Args:
        headers: The headers.
    """

    headers: list[tuple[bytes, bytes]]
    taken: int = 0

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for header in self.headers:
            self.taken += 1
            yield header


HEADERS: dict[str, list[tuple[bytes, bytes]]] = {
    "the-same": [(b"x-same", b"value")] * MANY,
    "the-same-and-empty": [(b"x-same", b"")] * MANY,
    "distinct": [(b"x-%d" % number, b"1") for number in range(MANY)],
    "two-by-turns": [(b"x-%d" % (number % 2), b"value") for number in range(MANY)],
    "one-large-value": [(b"x-large", b"a" * 1_000_000)],
    "one-large-name": [(b"x" * 1_000_000, b"1")],
    "cookies": [(b"cookie", b"a=1; b=2")] * MANY,
    "the-session-id": [(b"x-session-id", b"s-1")] * MANY,
    "not-ascii": [(b"x-%d" % number, b"\xe9" * 1_000) for number in range(1_000)],
}
"""Headers, by their defect."""

FORM = "application/x-www-form-urlencoded"

BRACKETS: dict[str, bytes] = {
    "empty-objects": b"[" + b",".join([b"{}"] * 21_000) + b"]",
    "empty-arrays": b"[" + b",".join([b"[]"] * 21_000) + b"]",
    "small-objects": b"[" + b",".join([b'{"a":1}'] * 8_000) + b"]",
    "nested-in-turns": b"[" + b",".join([b"[[[[{}]]]]"] * 5_500) + b"]",
    "in-a-chat": b'{"messages":[' + b",".join([b'{"role":"user"}'] * 4_000) + b"]}",
    "in-lines": b"{}\n" * 21_000,
    "in-events": b"data: {}\n\n" * 6_000,
    "cut": b'[{"a":[' + b"[],{}," * 10_000,
    "text-in-text": b'{"a": "' + b"[{}]," * 13_000 + b'"}',
    "in-a-field": b"a=[" + b"{}," * 21_000 + b"{}]",
}
"""Bodies of at most 64 KiB that expand to as many objects as possible."""

TYPES = {"in-lines": "application/x-ndjson", "in-events": "text/event-stream", "in-a-field": FORM}
"""Their media types, if not JSON."""
