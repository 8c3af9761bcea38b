"""What is kept of a body while it passes."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_middleware.capture.following import Follower


class _Past:
    """What is known of a body past its beginning."""

    __slots__ = ("follower", "is_unseen", "rest")

    def __init__(self, rest: bytes) -> None:
        self.rest = rest
        self.follower: Follower | None = None
        self.is_unseen = False


class Body:
    """The beginning of one body, how large all of it is, and what follows the rest, if anything.

    Args:
        limit: Bytes that are kept at most; the rest is counted.

    Attributes:
        size: Bytes that have passed.
        chunks: Pieces that they came in; empty ones do not count.
    """

    __slots__ = ("_kept", "_limit", "_past", "chunks", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: bytes | bytearray = b""
        self._past: _Past | None = None
        self.size = 0
        self.chunks = 0

    @property
    def limit(self) -> int:
        """Bytes of it that are known at most."""
        return self._limit

    def add(self, chunk: bytes) -> bool:
        """The next piece has passed; returns whether it is the first that does not fit: `follow` is to be called."""
        size = len(chunk)
        if not size:
            return False
        self.size += size
        self.chunks += 1
        if self.size == size <= self._limit and type(chunk) is bytes:
            self._kept = chunk  # most bodies are one piece: no copy
            return False
        if self._past is not None:
            if self._past.follower:
                self._past.follower.add(chunk)
            return False
        room = self._limit - len(self._kept)
        if not isinstance(self._kept, bytearray):
            self._kept = bytearray(self._kept)
        self._kept += chunk[:room]
        if size <= room:
            return False
        self._past = _Past(chunk[room:] if self._limit else b"")
        return self._limit > 0

    def follow(self, choose: Callable[[bytes, int], Follower | None]) -> None:
        """Let something take the rest.

        Args:
            choose: Called with the beginning and the limit; what it returns takes over the beginning, too.
        """
        past = self._past
        if past is None:
            return
        rest, past.rest = past.rest, b""
        past.follower = choose(bytes(self._kept), self._limit)
        if past.follower:
            if past.follower.has_beginning:
                self._kept = b""
            past.follower.add(rest)

    def count(self, size: int) -> None:
        """So many bytes have passed that nobody saw; they count where bodies are kept at all."""
        self.size += size
        self._past = _Past(b"")
        self._past.is_unseen = self._limit > 0

    def uncaptured(self) -> Body:
        """Return a body of the same size of which nothing is kept."""
        body = Body(0)
        body.size, body.chunks = self.size, self.chunks
        return body

    @property
    def follower(self) -> Follower | None:
        """What takes the rest, if anything."""
        return None if self._past is None else self._past.follower

    @property
    def is_unseen(self) -> bool:
        """Whether nothing but its size is known, and that may be told."""
        return self._past is not None and self._past.is_unseen

    @property
    def kept(self) -> bytes:
        """The beginning, as far as it is kept."""
        return bytes(self._kept)

    @property
    def held(self) -> int:
        """Bytes that are kept; one, at least, where something can be told of it."""
        past = self._past
        if past is None:
            return len(self._kept)
        return len(self._kept) + past.is_unseen + (past.follower.held if past.follower else 0)

    @property
    def readable(self) -> bytes:
        """The beginning, as far as it is known: also what is not to be stored."""
        return bytes(self._kept)


class UnstoredBody(Body):
    """A body of which the trace holds nothing but its size; its beginning is there until `forget`."""

    __slots__ = ()

    def add(self, chunk: bytes) -> bool:
        """The next piece has passed; nothing follows it."""
        super().add(chunk)
        return False

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
        self._kept, self._limit, self._past = b"", 0, None
