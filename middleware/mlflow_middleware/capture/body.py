"""What is kept of a body while it passes."""

from __future__ import annotations


class Body:
    """The beginning of one body, and how large all of it is.

    Args:
        limit: Bytes that are kept at most; the rest is counted.

    Attributes:
        size: Bytes that have passed.
        chunks: Pieces that they came in; empty ones do not count.
    """

    __slots__ = ("_kept", "_limit", "chunks", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: bytes | bytearray = b""
        self.size = 0
        self.chunks = 0

    @property
    def limit(self) -> int:
        """Bytes of it that are known at most."""
        return self._limit

    def add(self, chunk: bytes) -> None:
        """The next piece has passed."""
        if not chunk:
            return
        self.size += len(chunk)
        self.chunks += 1
        room = self._limit - len(self._kept)
        if room <= 0:
            return
        if not self._kept and type(chunk) is bytes and len(chunk) <= room:
            self._kept = chunk  # most bodies are one piece: no copy
            return
        if not isinstance(self._kept, bytearray):
            self._kept = bytearray(self._kept)
        self._kept += chunk[:room]

    @property
    def kept(self) -> bytes:
        """The beginning, as far as it is kept."""
        return bytes(self._kept)

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return len(self._kept)

    @property
    def readable(self) -> bytes:
        """The beginning, as far as it is known: also what is not to be stored."""
        return bytes(self._kept)


class UnstoredBody(Body):
    """A body of which the trace holds nothing but its size; its beginning is there until `forget`."""

    __slots__ = ()

    @property
    def kept(self) -> bytes:
        """Nothing."""
        return b""

    @property
    def held(self) -> int:
        """None."""
        return 0

    def forget(self) -> None:
        """Let go of the beginning."""
        self._kept, self._limit = b"", 0
