"""Bodies, recorded as they pass."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_middleware.capture.following import Follower


class _Past:
    """The part of a body beyond its kept beginning."""

    __slots__ = ("follower", "is_unseen", "rest")

    def __init__(self, rest: bytes) -> None:
        self.rest = rest
        self.follower: Follower | None = None
        self.is_unseen = False


class Body:
    """The beginning and the size of a body, and the follower of the rest, if any.

    Args:
        limit: Maximum number of bytes that are kept; the rest is only counted.

    Attributes:
        size: Bytes that have passed.
        chunks: Number of chunks that have passed, without empty ones.
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
        """Maximum number of bytes that are kept."""
        return self._limit

    def add(self, chunk: bytes) -> bool:
        """Record the next chunk; return whether it is the first that does not fit, so that `follow` must be called."""
        size = len(chunk)
        if not size:
            return False
        self.size += size
        self.chunks += 1
        if self.size == size <= self._limit and type(chunk) is bytes:
            self._kept = chunk  # most bodies are one chunk: no copy
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
        """Attach a follower for the rest of the body.

        Args:
            choose: Returns the follower, given the beginning and the limit. It may take over the beginning, too.
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
        """Count bytes that pass unseen, such as a file sent by the server."""
        self.size += size
        self._past = _Past(b"")
        self._past.is_unseen = self._limit > 0

    def uncaptured(self) -> Body:
        """Return a body of the same size without any content."""
        body = Body(0)
        body.size, body.chunks = self.size, self.chunks
        return body

    @property
    def follower(self) -> Follower | None:
        """The follower of the rest, if any."""
        return None if self._past is None else self._past.follower

    @property
    def is_unseen(self) -> bool:
        """Whether only the size is known, and may be stored."""
        return self._past is not None and self._past.is_unseen

    @property
    def kept(self) -> bytes:
        """The beginning of the body, to be stored."""
        return bytes(self._kept)

    @property
    def held(self) -> int:
        """Bytes that are kept; at least one if anything can be stored."""
        past = self._past
        if past is None:
            return len(self._kept)
        return len(self._kept) + past.is_unseen + (past.follower.held if past.follower else 0)

    @property
    def readable(self) -> bytes:
        """The beginning of the body, even if it must not be stored."""
        return bytes(self._kept)


class UnstoredBody(Body):
    """A body of which only the size is stored; its beginning is readable until `forget`."""

    __slots__ = ()

    def add(self, chunk: bytes) -> bool:
        """Record the next chunk; a follower is never needed."""
        super().add(chunk)
        return False

    @property
    def kept(self) -> bytes:
        """Always empty: nothing is stored."""
        return b""

    @property
    def held(self) -> int:
        """Always 0: nothing is stored."""
        return 0

    def forget(self) -> None:
        """Release the beginning."""
        self._kept, self._limit, self._past = b"", 0, None
