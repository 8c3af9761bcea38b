"""W3C baggage: who asks, from service to service (https://www.w3.org/TR/baggage/)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

MAX_MEMBERS = 64
"""Entries of a header that are read; the least that a platform has to pass on."""

MAX_BYTES = 8192
"""Bytes of a header that is written; the least that a platform has to pass on. What does not fit is left out."""

_SAFE = "!#$&'()*-./:<=>?@[]^_`{|}~"
"""What stands for itself in a value, besides letters and digits: ``baggage-octet`` without ``%``, and without ``+``,
which OpenTelemetry for Python reads as a space."""


def baggage_of(header: str) -> dict[str, str]:
    """Read the entries of a ``baggage`` header, without their properties; the first of a key counts."""
    found: dict[str, str] = {}
    for member in header.split(",", MAX_MEMBERS)[:MAX_MEMBERS]:
        key, separator, value = member.partition(";")[0].partition("=")
        if separator and key.strip():
            found.setdefault(key.strip(), unquote(value.strip(), errors="replace"))
    return found


def baggage_header(entries: Mapping[str, str | None]) -> str:
    """Write entries as the value of a ``baggage`` header, plain ASCII; empty if there are none."""
    header = ""
    for key, value in entries.items():
        member = f"{key}={quote(value, safe=_SAFE, errors='replace')}" if value else ""
        longer = f"{header},{member}" if header and member else header or member
        header = longer if len(longer) <= MAX_BYTES else header
    return header
