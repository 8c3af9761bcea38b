"""Content-Encoding undone, never into more bytes than asked for: a few bytes may stand for gigabytes."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

MAX_LAYERS = 3
"""Encodings on top of each other that are undone."""

MAX_ZSTD_WINDOW = 8 * 2**20
"""Bytes a zstd decoder may hold back: what RFC 9659 allows a ``Content-Encoding``."""

_STEP = 1024
"""Bytes given to a decoder at once; what it made of the ones before an error is kept."""


def decoded(data: bytes, content_encoding: str, limit: int) -> tuple[bytes, bool] | None:
    """Undo a Content-Encoding, as far as the data goes.

    Args:
        data: The body, or its beginning.
        content_encoding: The header: encodings between commas, the last one applied last.
        limit: Bytes to return at most.

    Returns:
        The bytes, and whether there was more; None if an encoding is unknown, its library is not installed,
        or the data is not encoded so.
    """
    if not content_encoding:
        return data[:limit], len(data) > limit
    layers = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if len(layers) > MAX_LAYERS:
        return None
    is_more = False
    for name in reversed(layers):
        if not data:
            break
        decode = _DECODERS.get(name)
        result = decode(data, limit + 1) if decode else None
        if result is None:
            return None
        data, is_incomplete = result
        is_more = is_more or is_incomplete
    return data[:limit], is_more or len(data) > limit


def _collect(pieces: Iterator[bytes], limit: int) -> tuple[bytes, bool] | None:
    """Join what a decoder yields, up to ``limit`` bytes; None if it fails before it has yielded anything."""
    output = bytearray()
    try:
        for piece in pieces:
            output += piece
            if len(output) >= limit:
                return bytes(output[:limit]), True
    except EOFError:
        return bytes(output), True
    except Exception:  # each library has its own, and some have several
        return (bytes(output), True) if output else None
    return bytes(output), False


def _inflate(data: bytes, limit: int, window: int) -> Iterator[bytes]:
    """Decompress with zlib, one member after the other."""
    decoder = zlib.decompressobj(window)
    for start in range(0, len(data), _STEP):
        chunk = data[start : start + _STEP]
        while chunk:
            if decoder.eof:
                decoder = zlib.decompressobj(window)
            yield decoder.decompress(chunk, limit)
            chunk = decoder.unconsumed_tail or decoder.unused_data
    if not decoder.eof:
        raise EOFError


def _gzip(data: bytes, limit: int) -> tuple[bytes, bool] | None:
    return _collect(_inflate(data, limit, 16 + zlib.MAX_WBITS), limit)


def _deflate(data: bytes, limit: int) -> tuple[bytes, bool] | None:
    """Decompress zlib's format, or deflate without its header, which some servers send."""
    wrapped = _collect(_inflate(data, limit, zlib.MAX_WBITS), limit)
    if wrapped and wrapped[0]:
        return wrapped
    bare = _collect(_inflate(data, limit, -zlib.MAX_WBITS), limit)
    return bare if bare and bare[0] else wrapped or bare


def _brotli(data: bytes, limit: int) -> tuple[bytes, bool] | None:
    library = _library("brotli") or _library("brotlicffi")
    return _collect(_unbrotli(library, data, limit), limit) if library else None


def _unbrotli(library: Any, data: bytes, limit: int) -> Iterator[bytes]:
    decoder = library.Decompressor()
    for start in range(0, len(data), _STEP):
        # A version without this argument cannot be held back: it raises TypeError, and nothing is decoded.
        yield decoder.process(data[start : start + _STEP], output_buffer_limit=limit)
        while not decoder.can_accept_more_data():
            yield decoder.process(b"", output_buffer_limit=limit)
    if not decoder.is_finished():
        raise EOFError


def _zstd(data: bytes, limit: int) -> tuple[bytes, bool] | None:
    standard, other = _library("compression.zstd"), _library("zstandard")
    if standard:
        return _collect(_unzstd(standard, data, limit), limit)
    return _collect(_unzstd_other(other, data, limit), limit) if other else None


def _unzstd(library: Any, data: bytes, limit: int) -> Iterator[bytes]:
    options = {library.DecompressionParameter.window_log_max: MAX_ZSTD_WINDOW.bit_length() - 1}
    decoder = library.ZstdDecompressor(options=options)
    for start in range(0, len(data), _STEP):
        if not decoder.eof:
            yield decoder.decompress(data[start : start + _STEP], max_length=limit)
    if not decoder.eof:
        raise EOFError


def _unzstd_other(library: Any, data: bytes, limit: int) -> Iterator[bytes]:
    decoder = library.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
    with decoder.stream_reader(BytesIO(data), read_size=_STEP, read_across_frames=True) as reader:
        while piece := reader.read(limit):
            yield piece


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_DECODERS: dict[str, Callable[[bytes, int], tuple[bytes, bool] | None]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
