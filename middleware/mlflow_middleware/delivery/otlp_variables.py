"""OpenTelemetry's own variables for an OTLP collector.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/. Variables for traces take precedence over general ones.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

PREFIX = "otlp:"
"""The prefix of a collector's address, which distinguishes it from tracking URIs."""

DEFAULT_ENDPOINT = "http://localhost:4318"
"""The address of a collector without configuration."""

GRPC_PORT = 4317
"""The port where collectors listen for gRPC only; it implies gRPC unless a variable specifies otherwise."""

MAX_SECONDS = 600.0
"""A larger timeout is taken as milliseconds, the specification's unit; OpenTelemetry's Python SDK uses seconds."""

_TRACES = "OTEL_EXPORTER_OTLP_TRACES_"
_ALL = "OTEL_EXPORTER_OTLP_"

_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""Patterns of a header's name and value: https://www.rfc-editor.org/rfc/rfc9110#section-5."""


@dataclass(frozen=True)
class Collector:
    """An OTLP collector, as the environment describes it.

    Attributes:
        variable: The variable that specifies it; empty if none does.
        url: The address that spans are posted to.
        protocol: ``http/protobuf`` or ``grpc``.
        headers: Headers of each request.
        timeout: Maximum number of seconds for a request.
        compression: ``gzip``, ``deflate`` or empty.
        is_insecure: Whether gRPC works without TLS if the address has no scheme.
        verify: File of the certificates to verify the collector's with; True for the default ones.
        client: Our certificate, or certificate and key, if any.
        problem: The error in the variables, in one sentence; empty if there is none.
    """

    variable: str
    url: str
    protocol: str = "http/protobuf"
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = 10.0
    compression: str = ""
    is_insecure: bool = False
    verify: str | bool = True
    client: str | tuple[str, str] | None = None
    problem: str = ""

    @property
    def uri(self) -> str:
        """Its equivalent of a tracking URI."""
        return PREFIX + self.url


def named_collector() -> Collector | None:
    """Return the collector that the environment specifies; None if there is none or export to it is turned off."""
    if not endpoint_variable() or _is_off():
        return None
    return collector()


def collector() -> Collector:
    """Return the collector that the environment specifies, or the one at the default address."""
    variable = endpoint_variable()
    endpoint = os.environ[variable].strip() if variable else DEFAULT_ENDPOINT
    found = Collector(variable, endpoint)
    try:
        parts = urlsplit(endpoint)
        _ = parts.hostname, parts.port
    except ValueError:
        return replace(found, problem=f"{variable} is not an address; it must look like {DEFAULT_ENDPOINT}")
    protocol = (_value("PROTOCOL") or ("grpc" if parts.port == GRPC_PORT else "http/protobuf")).lower()
    if protocol != "grpc" and (parts.scheme not in ("http", "https") or not parts.hostname):
        return replace(found, problem=f"{variable} must be a whole address, such as {DEFAULT_ENDPOINT}")
    return replace(
        found,
        url=endpoint if protocol == "grpc" else _url(parts, is_base=not variable.startswith(_TRACES)),
        protocol=protocol,
        headers=_headers(_value("HEADERS")),
        timeout=_seconds(_value("TIMEOUT")),
        compression="" if (how := _value("COMPRESSION").lower()) == "none" else how,
        is_insecure=_value("INSECURE").lower() == "true",
        verify=_value("CERTIFICATE") or True,
        client=_client(_value("CLIENT_CERTIFICATE"), _value("CLIENT_KEY")),
        problem=_problem(protocol, how),
    )


def endpoint_variable() -> str:
    """Return the name of the variable that specifies a collector; empty if none does."""
    names = (f"{_TRACES}ENDPOINT", f"{_ALL}ENDPOINT")
    return next((name for name in names if os.environ.get(name, "").strip()), "")


def _is_off() -> bool:
    """Return whether MLflow's own switch or OpenTelemetry's turns the export off."""
    wanted = os.environ.get("MLFLOW_ENABLE_OTLP_EXPORTER", "true").strip().lower()
    return wanted in ("false", "0") or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _value(name: str) -> str:
    return (os.environ.get(_TRACES + name) or os.environ.get(_ALL + name) or "").strip()


def _url(parts: SplitResult, *, is_base: bool) -> str:
    """Return the address to post to: an address for traces is used unchanged, one for all signals gets a path."""
    path = f"{parts.path.rstrip('/')}/v1/traces" if is_base else parts.path or "/"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    """Parse ``name=value,name=value``, percent-encoded as in W3C baggage; skip headers that cannot be sent."""
    pairs = [pair.partition("=") for pair in text.split(",") if "=" in pair]
    found = [(unquote(name).strip().lower(), unquote(value).strip()) for name, _, value in pairs]
    return tuple((name, value) for name, value in found if _NAME.fullmatch(name) and _VALUE.fullmatch(value))


def _seconds(text: str) -> float:
    try:
        given = float(text)
    except ValueError:
        return 10.0
    if not given > 0:
        return 10.0
    return given if given <= MAX_SECONDS else min(given / 1000, MAX_SECONDS)


def _client(certificate: str, key: str) -> str | tuple[str, str] | None:
    return (certificate, key) if certificate and key else certificate or None


def _problem(protocol: str, compression: str) -> str:
    if protocol == "grpc" and importlib.util.find_spec("grpc") is None:
        return (
            f"{endpoint_variable() or _ALL + 'PROTOCOL'} means gRPC, which needs grpcio: pip install "
            f"opentelemetry-exporter-otlp-proto-grpc, or set {_ALL}PROTOCOL=http/protobuf and the port for HTTP, "
            "usually 4318"
        )
    if protocol not in ("http/protobuf", "grpc"):
        return f"{_ALL}PROTOCOL={protocol} is not supported here; set it to http/protobuf"
    if compression not in ("", "none", "gzip", "deflate"):
        return f"{_ALL}COMPRESSION={compression} is not known; set it to gzip or none"
    return ""
