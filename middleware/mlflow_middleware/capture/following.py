"""Followers, which process a body beyond its kept beginning: they keep its end, or assemble a model's stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mlflow_middleware.capture import media_type
from mlflow_middleware.capture.decoders import Decode, decoder_for
from mlflow_middleware.capture.folds import LOOKED_AT, fold_for
from mlflow_middleware.capture.folds.base import Fold
from mlflow_middleware.capture.forms import LINES, Form, form_of
from mlflow_middleware.capture.long_runs import LongRuns
from mlflow_middleware.capture.multipart import form_of as form_of_headers
from mlflow_middleware.capture.texts import CONTEXT, is_cut, weight
from mlflow_middleware.capture.usage import usage_in, usage_of

BLOCK = 1024
"""Bytes that are folded at once: few enough not to delay a request, and more than most chunks."""

MAX_DECODED = 64
"""Limit on the decoded size of a compressed stream that is read after it has passed, in multiples of
`max_body_bytes`."""

_LOOKED_AT = 8 * 1024
"""Bytes of a compressed stream that are decoded to recognize it."""

_STEP = 16 * 1024
"""Bytes of chunks that are parsed at once."""

_MARK = 4
"""Length of the longest separator between two events, in bytes."""

_MAX_EXTRA = 20
"""Maximum number of chunks with token usage that are folded although the limit is reached."""

_SPARE = 4
"""Limit on the size of a response's objects, in multiples of `max_body_bytes`."""

_SPARE_CONTEXT = 24 * CONTEXT
"""Additional bytes for the context of two texts, which is searched for secrets."""

_STREAMS = ("text/event-stream", "application/json", "text/plain", *LINES)

GRPC_WEB = "application/grpc-web"
"""Prefix of gRPC-web's media types; its status is at the end of a body."""


class Follower(Protocol):
    """Processor of the part of a body after its kept beginning.

    Attributes:
        has_beginning: Whether it holds the beginning, too.
    """

    has_beginning: bool

    @property
    def held(self) -> int:
        """Approximate number of bytes that it holds."""

    def add(self, data: bytes) -> None:
        """Process the next bytes."""


def follower_of_answer(start: bytes, content_type: str, encoding: str, limit: int) -> Follower | None:
    """Return the follower of a response; None if the rest is only counted.

    Args:
        start: The beginning; the follower of a model's stream takes it over.
        content_type: The header.
        encoding: The header ``Content-Encoding``.
        limit: ``max_body_bytes``.
    """
    named = media_type.named(content_type)
    if named in _STREAMS and (folded := Folded.begun(start, named, encoding, limit)):
        return folded
    if encoding and encoding.lower() != "identity":
        return None
    if named == "application/json" or named.endswith("+json"):
        return LongRuns(start, limit, End(limit))
    return End(limit) if named in _STREAMS or named.startswith(GRPC_WEB) else None


def follower_of_request(start: bytes, content_type: str, encoding: str, limit: int) -> Follower | None:
    """Return the follower of a request; None if the rest is only counted."""
    named = media_type.named(content_type)
    if named == "multipart/form-data":
        form = form_of_headers({"content-type": content_type, "content-encoding": encoding}, limit)
        if form is not None:
            form.add(start)
        return form
    is_json = named == "application/json" or named.endswith("+json")
    return LongRuns(start, limit, None) if is_json and not encoding else None


class End:
    """The last bytes of a body.

    Args:
        limit: ``max_body_bytes``; a quarter of it is kept.
    """

    has_beginning = False

    def __init__(self, limit: int) -> None:
        self._longest = max(1, limit // 4)
        self._data = bytearray()
        self._size = 0

    def add(self, data: bytes) -> None:
        """See `Follower`."""
        self._size += len(data)
        self._data += data[-self._longest :]
        if len(self._data) > 2 * self._longest:
            del self._data[: -self._longest]

    @property
    def held(self) -> int:
        """See `Follower`."""
        return len(self._data)

    @property
    def kept(self) -> bytes:
        """The bytes."""
        return bytes(self._data[-self._longest :])

    def after(self, beginning: bytes) -> bytes:
        """Return the last bytes of a body, some of which may be part of its beginning."""
        kept = self.kept
        return (beginning + kept)[-self._longest :] if len(kept) == self._size else kept


class Folded:
    """A language model's stream: its last bytes as received, and the response assembled from the bytes before.

    A compressed stream is decoded slightly faster than it arrives, so that the backlog from before it was followed
    never delays a request.

    Args:
        fold: Assembles the response.
        form: Separates the chunks.
        decode: Decodes the ``Content-Encoding``.
        limit: ``max_body_bytes``.
    """

    has_beginning = True

    def __init__(self, fold: Fold, form: Form, decode: Decode, limit: int) -> None:
        self._fold = fold
        self._form = form
        self._decode: Decode | None = decode
        self._limit = limit
        self._encoded = bytearray()
        self._window = bytearray()
        self._looked = self._since_weighed = self._extra = 0
        self._is_inside = self._is_full = self._is_dropped = False
        self._usage: dict[str, int] | None = None
        self._answer: dict[str, Any] | None = None

    @classmethod
    def begun(cls, start: bytes, named: str, encoding: str, limit: int) -> Folded | None:
        """Return the follower of a stream, given its beginning; None if no model's protocol is recognized."""
        decode = decoder_for(encoding)
        if decode is None:
            return None
        try:
            readable = start if decode is bytes else decode(start[:_LOOKED_AT])
        except Exception:  # each library raises its own errors
            return None
        form = form_of(named, readable)
        end = form and form.end(readable, 1)
        fold, looks = None, 0
        position = 0
        while form and end and fold is None and looks < LOOKED_AT:
            fold = fold_for(form.pieces(readable[position:end]), limit)
            position, looks = end, looks + 1
            end = form.end(readable, position + 1)
        if fold is None or form is None:
            return None
        folded = cls(fold, form, decoder_for(encoding) or bytes, limit)
        (folded._window if decode is bytes else folded._encoded).extend(start)
        return folded

    @property
    def held(self) -> int:
        """See `Follower`."""
        return len(self._window) + len(self._encoded) + weight(vars(self._fold))

    def add(self, data: bytes) -> None:
        """See `Follower`."""
        if self._encoded or self._decode is not bytes:
            self._encoded += data
            data = self._decoded(2 * len(data))
        self._add_decoded(data)

    def _add_decoded(self, data: bytes) -> None:
        self._window += data
        if len(self._window) >= self._limit + BLOCK:
            self._pass_on(len(self._window) - self._limit)

    def _decoded(self, count: int) -> bytes:
        piece = bytes(self._encoded[:count])
        del self._encoded[:count]
        if self._decode is None:
            return b""
        try:
            return self._decode(piece)
        except Exception:  # each library raises its own errors
            self._decode, self._is_dropped = None, True
            return b""

    def _pass_on(self, count: int) -> None:
        """Fold the first bytes of the window, up to the end of a chunk."""
        end = self._form.end(self._window, max(count, self._looked))
        self._looked = 0 if end else len(self._window) - _MARK
        if end is None:
            if len(self._window) > 2 * self._limit:
                del self._window[: -self._limit]
                self._looked = 0
                self._is_inside = self._is_dropped = True
            return
        block = bytes(self._window[:end])
        del self._window[:end]
        self._take(block)

    def _take(self, block: bytes) -> None:
        """Fold whole chunks, several at once."""
        start = 0
        if self._is_inside:
            self._is_inside = False
            start = self._form.end(block, 1) or len(block)
            self._take_tokens(block[:start])
        while start < len(block):
            end = self._form.end(block, start + _STEP) or len(block)
            if end - start > self._limit:  # one of them is too large
                end = self._form.end(block, start + 1) or len(block)
            if end - start > self._limit:
                self._take_tokens(block[start:end])
            else:
                for piece in self._form.pieces(block[start:end]):
                    self._add(piece)
            start = end
        self._weigh(len(block))

    def _take_tokens(self, piece: bytes) -> None:
        """Search a chunk only for token usage, because it is too large or its beginning is missing."""
        self._is_dropped = True
        self._usage = usage_in(piece[-self._limit :].decode("utf-8", "replace")) or self._usage

    def _weigh(self, count: int) -> None:
        self._since_weighed += count
        if self._since_weighed > self._limit // 4:
            self._since_weighed = 0
            room = _SPARE * self._limit + _SPARE_CONTEXT
            if not self._is_full and weight(vars(self._fold)) > room:
                self._is_dropped = True
                self._is_full = not self._fold.make_room(room)

    def _add(self, piece: Any) -> None:
        if not isinstance(piece, dict):
            return
        if self._is_full and not self._may_have_tokens(piece):
            self._is_dropped = True
            return
        try:
            self._fold.add(piece)
        except (TypeError, ValueError, RecursionError):  # not a chunk of this protocol
            self._is_dropped = True

    def _may_have_tokens(self, piece: dict[str, Any]) -> bool:
        """Return whether to fold a chunk with token usage beyond the limit; beyond that, only record the usage."""
        self._usage = usage_of(piece) or self._usage
        self._extra += "usage" in piece
        return "usage" in piece and self._extra < _MAX_EXTRA

    def answer(self, clean: Callable[[str], str]) -> tuple[dict[str, Any], bool, dict[str, int] | None]:
        """Return the response, whether a part of it is missing, and the token usage that it reports.

        Args:
            clean: Redacts texts that are too long to keep.
        """
        count = 0
        while self._encoded and count < MAX_DECODED * self._limit:
            decoded = self._decoded(BLOCK)
            count += len(decoded)
            self._add_decoded(decoded)
        self._is_dropped = self._is_dropped or bool(self._encoded)
        if self._window:
            window, self._window = bytes(self._window), bytearray()
            self._take(window)
        whole = self._fold.whole(clean)
        return whole, self._is_dropped or is_cut(list(vars(self._fold).values())), self._usage or usage_of(whole)


def whole_stream(data: bytes, content_type: str, encoding: str, limit: int) -> Folded | None:
    """Return the follower of a compressed stream that was short enough to be kept but is long when decoded."""
    named = media_type.named(content_type)
    return Folded.begun(data, named, encoding, limit) if named in _STREAMS else None
