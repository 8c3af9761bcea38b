"""The data for a separate connection to a tracking server."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """The data for a separate connection to a server.

    Attributes:
        host: The name or IP address.
        port: The port.
        tls: The context that verifies its certificate; None for plain HTTP.
        path: The prefix of each path.
        headers: The headers of each request: ``Host``, credentials, MLflow's own.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    path: str
    headers: Mapping[str, str]
