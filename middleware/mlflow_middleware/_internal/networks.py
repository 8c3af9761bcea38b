"""Trusted networks, as written in the option ``trusted_proxies``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

ANY = "*"
SOCKET = "unix"


class Networks:
    """A set of IP networks.

    Args:
        written: Addresses and networks; ``unix`` for a peer without an address, ``*`` for any peer.

    Raises:
        ValueError: An entry is none of these.
    """

    def __init__(self, written: Iterable[str]) -> None:
        names = set(written)
        self._has_any = ANY in names
        self._has_sockets = self._has_any or SOCKET in names
        self._networks = tuple(map(_network, sorted(names - {ANY, SOCKET})))

    def has(self, address: str) -> bool:
        """Return whether an address, without a port, is in one of the networks."""
        if self._has_any or not address:
            return self._has_sockets
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:  # a socket's path, or a name
            return self._has_sockets and address.startswith(("unix:", "/"))
        mapped = getattr(ip, "ipv4_mapped", None) or ip
        return any(mapped in network for network in self._networks)


def _network(written: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(written, strict=False)
    except ValueError:
        raise ValueError(f"{written!r} is not an IP address or network; use those, unix, or *") from None
