"""Form data as browsers post it (RFC 7578), parsed as it passes; of files, only name, type and size are kept.

The parser is Werkzeug's, imported with the first form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from mlflow_middleware._internal.guard import report
from mlflow_middleware.capture import media_type

if TYPE_CHECKING:
    from werkzeug.sansio import multipart as sansio

MAX_PARTS = 1000
"""Maximum number of parts that are read of a body."""

MAX_BOUNDARY = 200
"""Longest boundary, in bytes; RFC 2046 allows 70."""

_STEP = 16 * 1024
"""Bytes that are parsed at once, since the parser's cost is mostly per call."""

_MAX_UNREAD = 2 * _STEP
"""Maximum number of bytes that the parser may buffer, such as the headers of a part."""

MAX_HEADERS = 128 * 1024
"""Maximum number of characters of the headers of all parts together."""

_PART_OVERHEAD = 400
"""Approximate size of the objects of one part, in bytes."""

_BLANK_LINE = re.compile(rb"\r\n\r\n|\r\r|\n\n")


def form_of(headers: Mapping[str, str], limit: int) -> Form | None:
    """Return the parser of a request's form; None if the body is not form data, or is compressed."""
    kind = headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data") or headers.get("content-encoding"):
        return None
    boundary = media_type.boundary(kind)
    return Form(boundary, limit, media_type.codec(kind)) if 0 < len(boundary) <= MAX_BOUNDARY else None


class _Part:
    """One part: the text of a field, or the description of a file."""

    __slots__ = ("file", "name", "size", "text")

    def __init__(self, name: str, file: dict[str, Any] | None) -> None:
        self.name = name
        self.file = file
        self.size = 0
        self.text = bytearray()

    def value(self, encoding: str) -> Any:
        return self.text.decode(encoding, "replace") if self.file is None else {**self.file, "size": self.size}


class Form:
    """The parts of one form.

    Args:
        boundary: The boundary from the content type.
        limit: Maximum number of bytes of text that are kept, for all fields together.
        encoding: The encoding of text; undecodable bytes become U+FFFD.
    """

    has_beginning = True

    def __init__(self, boundary: bytes, limit: int, encoding: str = "utf-8") -> None:
        from werkzeug.exceptions import RequestEntityTooLarge
        from werkzeug.sansio import multipart as sansio

        self._sansio = sansio
        self._refusal = RequestEntityTooLarge
        self._decoder = sansio.MultipartDecoder(boundary, _MAX_UNREAD, max_parts=MAX_PARTS)
        self._encoding = encoding
        self._room = limit
        self._room_of_headers = MAX_HEADERS
        self._parts: list[_Part] = []
        self._part: _Part | None = None
        self._unread = bytearray()
        self._is_over = self._is_cut = False

    @property
    def held(self) -> int:
        """Approximate number of bytes that it holds."""
        texts = sum(_PART_OVERHEAD + len(part.text) for part in self._parts)
        return texts + MAX_HEADERS - self._room_of_headers + len(self._unread) + len(self._decoder.buffer)

    def add(self, data: bytes | bytearray) -> None:
        """Process the next bytes of the body."""
        if self._is_over:
            return
        self._unread += data
        while len(self._unread) >= _STEP and not self._is_over:
            self._parse(_STEP - self._unread.startswith(b"\r", _STEP - 1))  # older Werkzeug misses a split CRLF

    def fields(self) -> tuple[dict[str, Any], bool]:
        """Return the fields by name, and whether something is missing. This ends the form: later bytes are ignored.

        A field is its text, a file its ``filename``, ``content_type`` and ``size`` in bytes; a repeated name has a list
        of these.
        """
        if not self._is_over:
            self._parse(_STEP)
        states = self._sansio.State
        if not self._is_over:
            self._is_over = self._is_cut = True
            if self._decoder.state is states.DATA:  # the parser holds back a possible start of a boundary
                self._add_data(bytes(self._decoder.buffer))
        return self._by_name(self._parts), self._is_cut

    def known(self) -> dict[str, Any]:
        """Return the fields that have passed completely, by name."""
        if not self._is_over:
            self._parse(_STEP)
        are_all = self._is_over and not self._is_cut
        ended = self._parts if are_all else self._parts[:-1]
        return self._by_name([part for part in ended if part.file or len(part.text) == part.size])

    def _by_name(self, parts: list[_Part]) -> dict[str, Any]:
        found: dict[str, list[Any]] = {}
        for part in parts:
            found.setdefault(part.name, []).append(part.value(self._encoding))
        return {name: values[0] if len(values) == 1 else values for name, values in found.items()}

    def _parse(self, size: int) -> None:
        """Parse the next bytes."""
        try:
            self._decoder.receive_data(bytes(self._unread[:size]))
            del self._unread[:size]
            while (event := self._next()) is not self._sansio.NEED_DATA:
                self._take(event)
            self._is_over = self._decoder.state is self._sansio.State.EPILOGUE
        except (self._refusal, ValueError):  # too many parts or headers, or malformed
            self._is_over = self._is_cut = True
        except Exception as error:
            self._is_over = self._is_cut = True
            report("reading a form", error)
        if self._is_over:
            self._unread.clear()

    def _next(self) -> sansio.Event:
        decoder = self._decoder
        try:
            return decoder.next_event()
        except UnicodeDecodeError:  # names are in the encoding of the form's page
            codec = "utf-8" if self._encoding.startswith(("utf-16", "utf-32")) else self._encoding
            blank = _BLANK_LINE.search(decoder.buffer)
            end = blank.start() if blank else len(decoder.buffer)
            decoder.buffer[:end] = decoder.buffer[:end].decode(codec, "replace").encode()
            return decoder.next_event()
        except ValueError:  # a part without a name
            self._part = None
            self._count_headers(_PART_OVERHEAD)
            decoder.state = self._sansio.State.DATA_START
            return decoder.next_event()

    def _take(self, event: sansio.Event) -> None:
        if isinstance(event, self._sansio.Data):
            self._add_data(event.data)
        elif isinstance(event, self._sansio.Field | self._sansio.File):
            self._part = self._begun(event)

    def _begun(self, event: sansio.Field | sansio.File) -> _Part | None:
        self._count_headers(sum(len(name) + len(value) for name, value in event.headers))
        name = cast("str | None", event.name)
        if name is None:
            return None
        file = None
        if isinstance(event, self._sansio.File):
            kind = event.headers.get("content-type", "application/octet-stream")
            file = {"filename": event.filename, "content_type": kind}
        part = _Part(name, file)
        self._parts.append(part)
        return part

    def _count_headers(self, size: int) -> None:
        self._room_of_headers -= size
        if self._room_of_headers < 0:
            raise self._refusal

    def _add_data(self, data: bytes) -> None:
        part = self._part
        if part is None:
            return
        part.size += len(data)
        if part.file is None:
            part.text += data[: self._room]
            self._is_cut = self._is_cut or len(data) > self._room
            self._room = max(self._room - len(data), 0)
