"""Where OpenTelemetry's own variables send traces: an OTLP collector.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/; of each variable, the one for traces only comes first.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

PREFIX = "otlp:"
"""What stands before a collector's address where tracking URIs are told apart."""

DEFAULT_ENDPOINT = "http://localhost:4318"
"""Where a collector listens that nobody has configured."""

GRPC_PORT = 4317
"""Where collectors listen for gRPC only: an address with it means that, unless a variable says otherwise."""

MAX_SECONDS = 600.0
"""A larger time-out counts as milliseconds, which the specification has; OpenTelemetry's Python SDK has seconds."""

_TRACES = "OTEL_EXPORTER_OTLP_TRACES_"
_ALL = "OTEL_EXPORTER_OTLP_"

_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""A header's name and value: https://www.rfc-editor.org/rfc/rfc9110#section-5."""


@dataclass(frozen=True)
class Collector:
    """An OTLP collector, as the environment describes it.

    Attributes:
        variable: The variable that names it; empty if none does.
        url: Where spans are posted.
        protocol: ``http/protobuf`` or ``grpc``.
        headers: Sent with each request.
        timeout: Seconds that a request may take.
        compression: ``gzip``, ``deflate`` or nothing.
        is_insecure: Whether gRPC goes without TLS where the address does not tell.
        verify: The certificates that its own is verified with; True for the usual ones.
        client: The certificate and the key that we show, if any.
        problem: What is wrong with the variables, in one sentence; empty if nothing is.
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
        """What stands for it where there is a tracking URI otherwise."""
        return PREFIX + self.url


def named_collector() -> Collector | None:
    """The collector that the environment names, unless it also says that nothing is to be sent there."""
    if not endpoint_variable() or _is_off():
        return None
    return collector()


def collector() -> Collector:
    """The collector that the environment names, or the one at the default address."""
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
    """The variable that names a collector; empty if none does."""
    names = (f"{_TRACES}ENDPOINT", f"{_ALL}ENDPOINT")
    return next((name for name in names if os.environ.get(name, "").strip()), "")


def _is_off() -> bool:
    """MLflow's own switch, and OpenTelemetry's."""
    wanted = os.environ.get("MLFLOW_ENABLE_OTLP_EXPORTER", "true").strip().lower()
    return wanted in ("false", "0") or os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _value(name: str) -> str:
    return (os.environ.get(_TRACES + name) or os.environ.get(_ALL + name) or "").strip()


def _url(parts: SplitResult, *, is_base: bool) -> str:
    """The address to post to: one for traces as it is, one for all signals with the path of traces after its own."""
    path = f"{parts.path.rstrip('/')}/v1/traces" if is_base else parts.path or "/"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    """``name=value,name=value``, each percent-encoded, as in W3C baggage; what cannot be sent is left out."""
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
