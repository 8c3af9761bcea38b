"""W3C baggage, which carries session and user from service to service (https://www.w3.org/TR/baggage/)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

MAX_MEMBERS = 64
"""Maximum number of entries that are read of a header: the minimum that the standard requires to propagate."""

MAX_BYTES = 8192
"""Longest header that is written, in bytes: the minimum that the standard requires to propagate.
Entries that do not fit are left out."""

_SAFE = "!#$&'()*-./:<=>?@[]^_`{|}~"
"""Characters of a value that need no percent-encoding, besides letters and digits: ``baggage-octet`` without ``%``, and
without ``+``, which OpenTelemetry for Python decodes as a space."""


def baggage_of(header: str) -> dict[str, str]:
    """Parse the entries of a ``baggage`` header without their properties; the first entry of a key wins."""
    found: dict[str, str] = {}
    for member in header.split(",", MAX_MEMBERS)[:MAX_MEMBERS]:
        key, separator, value = member.partition(";")[0].partition("=")
        if separator and key.strip():
            found.setdefault(key.strip(), unquote(value.strip(), errors="replace"))
    return found


def baggage_header(entries: Mapping[str, str | None]) -> str:
    """Return entries as the value of a ``baggage`` header, in plain ASCII; empty if there are none."""
    header = ""
    for key, value in entries.items():
        member = f"{key}={quote(value, safe=_SAFE, errors='replace')}" if value else ""
        longer = f"{header},{member}" if header and member else header or member
        header = longer if len(longer) <= MAX_BYTES else header
    return header
