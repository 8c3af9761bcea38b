"""What is kept of a body while it passes."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_middleware.capture.multipart import Form, form_of


class Body:
    """The beginning of one body, and how large all of it is; of a longer form, its fields.

    Args:
        limit: Bytes that are kept at most; the rest is counted.
        headers: The request's, whose body it is: a form is read as it passes.

    Attributes:
        size: Bytes that have passed.
        chunks: Pieces that they came in; empty ones do not count.
        form: The form that it is, once it is longer than the limit.
    """

    __slots__ = ("_headers", "_kept", "_limit", "chunks", "form", "size")

    def __init__(self, limit: int, headers: Mapping[str, str] | None = None) -> None:
        self._limit = limit
        self._headers = headers
        self._kept: bytes | bytearray = b""
        self.form: Form | None = None
        self.size = 0
        self.chunks = 0

    def add(self, chunk: bytes) -> None:
        """The next piece has passed."""
        if not chunk:
            return
        self.size += len(chunk)
        self.chunks += 1
        room = self._limit - len(self._kept)
        if len(chunk) > room:
            self._pass(chunk, room)
        elif not self._kept and type(chunk) is bytes:
            self._kept = chunk  # most bodies are one piece: no copy
        else:
            self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        if not isinstance(self._kept, bytearray):
            self._kept = bytearray(self._kept)
        self._kept += chunk

    def _pass(self, chunk: bytes, room: int) -> None:
        """Take what there is no room for."""
        if self._headers and self._limit:
            headers, self._headers = self._headers, None
            self.form = form_of(headers, self._limit)
            if self.form is not None:
                self.form.add(self._kept)
                self._kept, self._limit = b"", 0
        if self.form is not None:
            self.form.add(chunk)
        elif room > 0:
            self._keep(chunk[:room])

    @property
    def kept(self) -> bytes:
        """The beginning, as far as it is kept."""
        return bytes(self._kept)

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return len(self._kept) if self.form is None else self.form.held
