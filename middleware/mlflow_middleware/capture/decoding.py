"""Decoding of ``Content-Encoding`` with bounded output, since a few bytes may expand to gigabytes."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

MAX_LAYERS = 3
"""Maximum number of stacked encodings that are decoded."""

MAX_ZSTD_WINDOW = 8 * 2**20
"""Largest window of a zstd decoder, in bytes: the limit of RFC 9659 for ``Content-Encoding``."""

_STEP = 1024
"""Bytes passed to a decoder at once; output before an error is kept."""


def decoded(data: bytes, content_encoding: str, limit: int) -> tuple[bytes, bool] | None:
    """Decode a body, or its beginning.

    Args:
        data: The body, or its beginning.
        content_encoding: The header: a comma-separated list of encodings in the order of their application.
        limit: Maximum number of bytes to return.

    Returns:
        The bytes, and whether there are more; None if an encoding is unknown, its library is not installed, or the data
        is not encoded that way.
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
    """Join a decoder's output, up to ``limit`` bytes; return None if it fails before any output."""
    output = bytearray()
    try:
        for piece in pieces:
            output += piece
            if len(output) >= limit:
                return bytes(output[:limit]), True
    except EOFError:
        return bytes(output), True
    except Exception:  # each library raises its own errors
        return (bytes(output), True) if output else None
    return bytes(output), False


def _inflate(data: bytes, limit: int, window: int) -> Iterator[bytes]:
    """Decompress with zlib, member by member."""
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
    """Decompress zlib's format, or the raw deflate that some servers send."""
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
        # A version without this argument cannot bound its output: it raises TypeError, and nothing is decoded.
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
