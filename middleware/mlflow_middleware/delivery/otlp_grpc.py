"""Delivery to a collector over gRPC, if ``grpcio`` is installed, for example with OpenTelemetry's gRPC exporter."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow_middleware.delivery.otlp_variables import Collector
from mlflow_middleware.delivery.replies import PermanentError, RetryableError, TooLarge
from mlflow_middleware.delivery.rest import printable, root_cause

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
"""https://opentelemetry.io/docs/specs/otlp/#failures"""

_NEEDS_HELP = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"}


def post_by_grpc(collector: Collector) -> Callable[[bytes], bytes]:
    """Return a function that sends spans over gRPC and returns the collector's response.

    The channel is opened by the first call, in the process that sends.
    """
    channels: list[Any] = []

    def post(body: bytes) -> bytes:
        grpc: Any = importlib.import_module("grpc")
        how = grpc.Compression.Gzip if collector.compression == "gzip" else grpc.Compression.NoCompression
        try:
            if not channels:
                channels.append(_channel(grpc, collector))
            send = channels[0].unary_unary(METHOD)
            answer: bytes = send(body, timeout=collector.timeout, metadata=collector.headers, compression=how)
        except grpc.RpcError as error:
            raise _problem_of(collector, error.code().name, str(error.details())) from error
        except Exception as error:  # certificates that cannot be read, headers that gRPC does not take
            why = f"{collector.variable}: {printable(collector.url)} cannot be used ({root_cause(error)})"
            raise RetryableError(why, needs_help=True) from error
        return answer

    return post


def _channel(grpc: Any, collector: Collector) -> Any:
    target, is_secure = target_of(collector)
    if is_secure:
        roots = Path(collector.verify).read_bytes() if isinstance(collector.verify, str) else None
        shown = collector.client if isinstance(collector.client, tuple) else None
        key, chain = (Path(shown[1]).read_bytes(), Path(shown[0]).read_bytes()) if shown else (None, None)
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots, key, chain))
    return grpc.insecure_channel(target)


def target_of(collector: Collector) -> tuple[str, bool]:
    """Return gRPC's target and whether to use TLS, which is the default for addresses without a scheme."""
    scheme, separator, rest = collector.url.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        host = rest.partition("?")[0].partition("/")[0].rpartition("@")[2]  # gRPC would repeat a password in its errors
        return host, scheme.lower() == "https"
    return collector.url, not collector.is_insecure


def _problem_of(collector: Collector, code: str, details: str) -> RetryableError | PermanentError:
    answer = f"{collector.variable}: {printable(collector.url)} answered {code}: {details[:300]}"
    if code in _RETRYABLE or code in _NEEDS_HELP:
        return RetryableError(answer, needs_help=code in _NEEDS_HELP or code == "UNAVAILABLE")
    return TooLarge(answer) if code == "RESOURCE_EXHAUSTED" else PermanentError(answer)
