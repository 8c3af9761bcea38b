"""Form data as browsers post it, read as far as it goes (RFC 7578)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

MAX_PARTS = 1000
"""Parts that are read of one body."""

_MAX_HEADERS = 8192
"""Bytes looked at for the headers of a part."""

_PARAMETER = re.compile(r';\s*([\w*]{1,32})\s*=\s*(?:"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)|([^\s";]*))', re.DOTALL)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")


def fields(data: bytes, boundary: bytes, encoding: str = "utf-8") -> tuple[dict[str, Any], bool]:
    """Read multipart/form-data.

    Args:
        data: The body, or its beginning.
        boundary: The parameter of its content type.
        encoding: How text is encoded; undecodable bytes become U+FFFD.

    Returns:
        The fields by name, and whether something is missing: text as it is; a file as its ``filename``,
        ``content_type`` and ``size`` in bytes; a list of these where a name is repeated.
    """
    if not boundary:
        return {}, bool(data)
    found: dict[str, list[Any]] = {}
    pieces = (b"\r\n" + data).split(b"\n--" + boundary, MAX_PARTS + 1)
    is_closed = pieces[-1].startswith(b"--")
    for piece in pieces[1 : MAX_PARTS + 1]:
        if piece.startswith(b"--"):
            break
        name, value = _part(piece, encoding)
        if name is not None:
            found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}, not is_closed


def _part(piece: bytes, encoding: str) -> tuple[str | None, Any]:
    """The name and value of one part; no name where its headers are cut or do not tell."""
    blank = _BLANK_LINE.search(piece, 0, _MAX_HEADERS)
    if not blank:
        return None, None
    headers = _headers(piece[: blank.start()].decode(encoding, "replace"))
    content = piece[blank.end() :].removesuffix(b"\r")
    disposition = _parameters(headers.get("content-disposition", ""))
    name = disposition.get("name")
    filename = disposition.get("filename*", disposition.get("filename"))
    if filename is None:
        return name, content.decode(encoding, "replace")
    kind = headers.get("content-type", "application/octet-stream")
    return name, {"filename": filename, "content_type": kind, "size": len(content)}


def _headers(text: str) -> dict[str, str]:
    pairs = [line.partition(":") for line in text.split("\n")]
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _parameters(header: str) -> dict[str, str]:
    return {name.lower(): _plain(name, quoted or token) for name, quoted, token in _PARAMETER.findall(header)}


def _plain(name: str, value: str) -> str:
    """A parameter's value without its escapes: browsers write %22 or a backslash for a quote."""
    if name.endswith("*"):
        return unquote(value.rpartition("'")[2], errors="replace")
    return re.sub(r'\\(["\\])', r"\1", value).replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
