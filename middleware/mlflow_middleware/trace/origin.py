"""The origin of a request, before the trusted proxies.

https://www.rfc-editor.org/rfc/rfc7239 and the older ``X-Forwarded-For``, ``-Proto`` and ``-Host``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlflow_middleware._internal.networks import Networks
from mlflow_middleware.exchange import Exchange

_MAX_HOPS = 32
"""Maximum number of proxies that are considered, from the last one."""
_MAX_CHARACTERS = 8192
"""Maximum number of characters of a header that are parsed, from its end."""
_PAIR = re.compile(r'\s*([a-z]+)=(?:"([^"]*)"|([^\s;"]*))\s*', re.IGNORECASE)
_ADDRESS = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
"""An IPv6 address in brackets, or an IPv4 address with a port."""


class Origin(NamedTuple):
    """The origin of a request.

    Attributes:
        client: The client's address; empty if unknown.
        scheme: ``http`` or ``https``.
        host: The requested host, as in the ``Host`` header.
    """

    client: str
    scheme: str
    host: str


def origin_of(exchange: Exchange, trusted: Networks) -> Origin | None:
    """Return the origin according to a trusted proxy, or None without one: other peers may forge it."""
    headers = exchange.headers
    if not trusted.has(exchange.client):
        return None
    hops = _x_forwarded(headers)
    if "forwarded" in headers and not any(hop.client for hop in hops):  # most proxies write only the older headers, and
        hops = _forwarded(headers["forwarded"]) or hops  # pass on a client's own "Forwarded"
    if not hops:
        return None
    hop = next((each for each in reversed(hops) if not trusted.has(each.client)), hops[0])
    scheme = hop.scheme.lower()
    return Origin(
        hop.client or exchange.client,
        scheme if scheme in ("http", "https") else exchange.scheme,
        hop.host or headers.get("host", ""),
    )


def _forwarded(header: str) -> list[Origin]:
    hops = []
    for element in _parts(header):
        pairs = (_PAIR.fullmatch(pair) for pair in element.split(";"))
        fields = {match[1].lower(): match[2] or match[3] or "" for match in pairs if match}
        hops.append(Origin(_address(fields.get("for", "")), fields.get("proto", ""), fields.get("host", "")))
    return hops


def _x_forwarded(headers: Mapping[str, str]) -> list[Origin]:
    clients = _parts(headers.get("x-forwarded-for", ""))
    schemes, hosts = _parts(headers.get("x-forwarded-proto", "")), _parts(headers.get("x-forwarded-host", ""))
    if not clients:
        return [Origin("", _at(schemes, 0, 1), _at(hosts, 0, 1))] if schemes or hosts else []
    count = len(clients)
    return [Origin(_address(each), _at(schemes, at, count), _at(hosts, at, count)) for at, each in enumerate(clients)]


def _at(values: Sequence[str], index: int, count: int) -> str:
    """Return a hop's value if each hop has one; otherwise the last value, which the nearest proxy has set."""
    if len(values) == count:
        return values[index]
    return values[-1] if values else ""


def _parts(header: str) -> list[str]:
    return [part.strip() for part in header[-_MAX_CHARACTERS:].split(",")[-_MAX_HOPS:] if part.strip()]


def _address(written: str) -> str:
    """Return an address without brackets and port."""
    match = _ADDRESS.fullmatch(written)
    return match[1] or match[2] if match else written
