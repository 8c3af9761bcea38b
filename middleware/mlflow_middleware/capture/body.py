"""What is kept of a body while it passes."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_middleware.capture.following import Follower


class Body:
    """The beginning of one body, and how large all of it is.

    Args:
        limit: Bytes that are kept at most; the rest is counted.

    Attributes:
        size: Bytes that have passed.
        chunks: Pieces that they came in; empty ones do not count.
        is_unseen: Whether nothing but its size is known, and that could be told.
        follower: What takes the rest, if anything.
    """

    __slots__ = ("_is_over", "_kept", "_limit", "_rest", "chunks", "follower", "is_unseen", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: bytes | bytearray = b""
        self._rest = b""
        self.follower: Follower | None = None
        self._is_over = self.is_unseen = False
        self.size = 0
        self.chunks = 0

    def add(self, chunk: bytes) -> bool:
        """The next piece has passed; returns whether it is the first that does not fit: `follow` is to be called."""
        if not chunk:
            return False
        self.size += len(chunk)
        self.chunks += 1
        if self._is_over:
            if self.follower:
                self.follower.add(chunk)
            return False
        room = self._limit - len(self._kept)
        if not self._kept and type(chunk) is bytes and len(chunk) <= room:
            self._kept = chunk  # most bodies are one piece: no copy
            return False
        if not isinstance(self._kept, bytearray):
            self._kept = bytearray(self._kept)
        self._kept += chunk[:room]
        self._is_over = len(chunk) > room
        if self._is_over and self._limit:
            self._rest = chunk[room:]
            return True
        return False

    def count(self, size: int) -> None:
        """So many bytes have passed that nobody saw; they count where bodies are kept at all."""
        self.size += size
        self.is_unseen = self._limit > 0

    def follow(self, choose: Callable[[bytes, int], Follower | None]) -> None:
        """Let something take the rest.

        Args:
            choose: Called with the beginning and the limit; what it returns takes over the beginning, too.
        """
        rest, self._rest = self._rest, b""
        self.follower = choose(bytes(self._kept), self._limit)
        if self.follower:
            if self.follower.has_beginning:
                self._kept = b""
            self.follower.add(rest)

    @property
    def kept(self) -> bytes:
        """The beginning, as far as it is kept."""
        return bytes(self._kept)

    @property
    def held(self) -> int:
        """Bytes that are kept; one, at least, where something can be told of it."""
        return len(self._kept) + self.is_unseen + (self.follower.held if self.follower else 0)
