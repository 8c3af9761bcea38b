"""Incremental decoding of ``Content-Encoding``, as a stream passes."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any

from mlflow_middleware.capture.decoding import MAX_ZSTD_WINDOW

MAX_PIECE = 2**20
"""Maximum number of bytes that one step may decode to; a model's text does not compress better."""

_STEP = 1024
"""Bytes passed to a decoder at once."""

Decode = Callable[[bytes], bytes]


def decoder_for(content_encoding: str) -> Decode | None:
    """Return an incremental decoder; None if the encoding is unknown or its library is not installed.

    The decoder raises ValueError if the output is too large, and its library's own error if the data is invalid.
    """
    names = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    if not names:
        return bytes
    make = _DECODERS.get(names[0]) if len(names) == 1 else None
    try:
        decode = make() if make else None
    except ImportError:
        return None
    return decode and _in_steps(decode)


def _in_steps(decode: Decode) -> Decode:
    def decoded(data: bytes) -> bytes:
        found = bytearray()
        for start in range(0, len(data), _STEP):
            found += decode(data[start : start + _STEP])
            if len(found) > MAX_PIECE:
                raise ValueError("too many bytes")
        return bytes(found)

    return decoded


def _gzip() -> Decode:
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def decode(data: bytes) -> bytes:
        nonlocal decoder
        found = b""
        while data:
            if decoder.eof:  # another member follows
                decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
            found += decoder.decompress(data, MAX_PIECE)
            if decoder.unconsumed_tail:
                raise ValueError("too many bytes")
            data = decoder.unused_data
        return found

    return decode


def _deflate() -> Decode:
    decoder: Any = None

    def decode(data: bytes) -> bytes:
        nonlocal decoder
        if decoder is None:
            has_header = len(data) > 1 and data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            decoder = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        found: bytes = decoder.decompress(data, MAX_PIECE)
        if decoder.unconsumed_tail:
            raise ValueError("too many bytes")
        return found

    return decode


def _brotli() -> Decode:
    try:
        library: Any = importlib.import_module("brotli")
    except ImportError:
        library = importlib.import_module("brotlicffi")
    decoder = library.Decompressor()

    def decode(data: bytes) -> bytes:
        found: bytes = decoder.process(data, output_buffer_limit=MAX_PIECE)
        if not decoder.can_accept_more_data():
            raise ValueError("too many bytes")
        return found

    return decode


def _zstd() -> Decode:
    try:
        library: Any = importlib.import_module("compression.zstd")
    except ImportError:
        other: Any = importlib.import_module("zstandard")
        decode: Decode = other.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj().decompress
        return decode
    options = {library.DecompressionParameter.window_log_max: MAX_ZSTD_WINDOW.bit_length() - 1}
    decoder = library.ZstdDecompressor(options=options)
    return lambda data: bytes(decoder.decompress(data, max_length=MAX_PIECE))


_DECODERS: dict[str, Callable[[], Decode]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
