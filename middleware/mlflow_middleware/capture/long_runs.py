"""Files in JSON: runs of base64 are left out of a body that is too large, so that the text around them is kept.

A body is followed only once it is too large; then runs in its kept beginning are left out, too.
"""

from __future__ import annotations

from typing import Protocol

SHORTEST = 1024
"""Shortest run, in characters, that is left out: longer than any word, id or key."""

_LOOKED_AT = 256
"""Characters of a run that are examined to recognize base64."""

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-\\"
_FOLDED = bytes(97 if char in _BASE64 else 32 for char in range(256))
"""Translation table: characters of base64, including PHP's escaped slashes, become ``a``, all others a space."""

_LONG = b"a" * SHORTEST


class Rest(Protocol):
    """Receiver of the bytes that do not fit."""

    @property
    def held(self) -> int:
        """Bytes that it keeps."""

    def after(self, beginning: bytes) -> bytes:
        """Return the last bytes of a body with this beginning."""

    def add(self, data: bytes) -> None:
        """Process the next bytes."""


class LongRuns:
    """A JSON body without its runs of base64.

    Args:
        start: The beginning of the body.
        limit: Maximum number of bytes that are kept.
        rest: Receives the bytes after these.
    """

    has_beginning = True

    def __init__(self, start: bytes, limit: int, rest: Rest | None) -> None:
        self._limit = limit
        self._rest = rest
        self._kept = bytearray()
        self._waiting = b""
        self._run: int | None = None
        self._is_text = self._is_over = False
        self._slashes = 0
        self.add(start)

    @property
    def held(self) -> int:
        """Bytes that it keeps."""
        return len(self._kept) + len(self._waiting) + (self._rest.held if self._rest else 0)

    @property
    def kept(self) -> bytes:
        """The beginning of the body, without runs."""
        last = self._waiting if self._run is None else _note(self._run)
        return bytes((self._kept + last)[: self._limit])

    @property
    def is_whole(self) -> bool:
        """Whether only runs are missing."""
        return not self._is_over and len(self._kept) + len(self._waiting) <= self._limit

    @property
    def end(self) -> bytes:
        """The end of the body, without runs, if it is kept."""
        return self._rest.after(bytes(self._kept)) + self._waiting if self._rest else b""

    def add(self, data: bytes) -> None:
        """Process the next bytes."""
        data, self._waiting = self._waiting + data, b""
        folded = data.translate(_FOLDED)
        position = self._gone_on(data, folded)
        while (start := folded.find(_LONG, position)) >= 0:
            stop = folded.find(b" ", start)
            self._emit(data[position:start])
            position = len(data) if stop < 0 else stop
            if not _is_base64(data[start : start + _LOOKED_AT]):
                self._is_text = stop < 0
                self._emit(data[start:position])
            else:
                self._leave_out(data[start:position], is_end=stop >= 0)
        if self._run is None and not self._is_text:  # the rest may be the beginning of a run
            self._waiting = data[max(position, folded.rfind(b" ") + 1) :]
            self._emit(data[position : len(data) - len(self._waiting)])

    def _gone_on(self, data: bytes, folded: bytes) -> int:
        """Process the end of a run that began earlier; return its length."""
        if self._run is None and not self._is_text:
            return 0
        stop = folded.find(b" ")
        first = data if stop < 0 else data[:stop]
        if self._is_text:
            self._is_text = stop < 0
            self._emit(first)
        else:
            self._leave_out(first, is_end=stop >= 0)
        return len(first)

    def _leave_out(self, data: bytes, *, is_end: bool) -> None:
        self._run = (self._run or 0) + len(data)
        slashes = len(data) - len(data.rstrip(b"\\"))
        self._slashes = slashes if slashes < len(data) else self._slashes + slashes
        if is_end:
            self._emit(_note(self._run) + b"\\" * self._slashes)  # they escape the quote that follows
            self._run, self._slashes = None, 0

    def _emit(self, data: bytes) -> None:
        room = self._limit - len(self._kept)
        self._kept += data[:room]
        if len(data) > room:
            self._is_over = True
            if self._rest:
                self._rest.add(data[room:])


def _is_base64(text: bytes) -> bool:
    """Return whether a run looks like base64: it contains upper-case letters, lower-case letters and digits."""
    kinds = (bytes.isupper, bytes.islower, bytes.isdigit)
    return all(any(kind(bytes([char])) for char in text) for kind in kinds)


def _note(count: int) -> bytes:
    return b"[%d characters of base64 left out]" % count
