"""Parsing of ``Content-Type``: the media type and its parameters."""

from __future__ import annotations

import codecs
import re

_PARAMETER = r';\s*{}\s*=\s*(?:"([^"]*)|([^\s";]*))'
_CHARSET = re.compile(_PARAMETER.format("charset"), re.IGNORECASE)
_BOUNDARY = re.compile(_PARAMETER.format("boundary"), re.IGNORECASE)
_CODEC = re.compile(r"ascii|utf-?(8|16|32).*|iso-?8859-?\d+|cp\d+|koi8-\w|gb\w+|big5\w*|shift_jis\w*|euc_\w+|mac-\w+")
"""Python's codecs for text on the web. Others do not encode text, or are slow on malicious input."""


def named(content_type: str) -> str:
    """Return the media type in lower case, without its parameters; empty if missing."""
    return content_type.partition(";")[0].strip().lower()


def boundary(content_type: str) -> bytes:
    """Return the boundary of a multipart body; empty if missing."""
    match = _BOUNDARY.search(content_type)
    return (match[1] or match[2] or "").encode("latin-1", "replace") if match else b""


def codec(content_type: str) -> str:
    """Return the codec of the charset; UTF-8 by default."""
    match = _CHARSET.search(content_type)
    charset = match[1] or match[2] or "" if match else ""
    try:
        name = codecs.lookup(charset.strip()).name
    except (LookupError, ValueError):
        return "utf-8"
    return name if _CODEC.fullmatch(name) else "utf-8"
