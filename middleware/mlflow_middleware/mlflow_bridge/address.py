"""How to talk to a tracking server over a connection of one's own."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """How to talk to a server over a connection of one's own.

    Attributes:
        host: Its name or IP address.
        port: Its port.
        tls: How its certificate is verified; None for plain HTTP.
        path: What stands before each path.
        headers: What each request carries: ``Host``, credentials, MLflow's own.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    path: str
    headers: Mapping[str, str]
