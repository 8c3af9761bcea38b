"""Spans to a collector by gRPC, where ``grpcio`` is installed: OpenTelemetry's exporter for gRPC brings it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow_middleware.delivery.otlp_variables import Collector
from mlflow_middleware.delivery.replies import PermanentError, RetryableError, TooLarge

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
"""https://opentelemetry.io/docs/specs/otlp/#failures"""

_NEEDS_HELP = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"}


def post_by_grpc(collector: Collector) -> Callable[[bytes], str]:
    """What sends spans by gRPC; the channel is opened with the first of them, in the process that sends them."""
    channels: list[Any] = []

    def post(body: bytes) -> str:
        grpc: Any = importlib.import_module("grpc")
        if not channels:
            channels.append(_channel(grpc, collector))
        how = grpc.Compression.Gzip if collector.compression == "gzip" else grpc.Compression.NoCompression
        send = channels[0].unary_unary(METHOD)
        try:
            send(body, timeout=collector.timeout, metadata=collector.headers, compression=how)
        except grpc.RpcError as error:
            raise _problem_of(collector, error.code().name, str(error.details())) from error
        return ""

    return post


def _channel(grpc: Any, collector: Collector) -> Any:
    parts = urlsplit(collector.url if "://" in collector.url else f"//{collector.url}")
    if parts.scheme == "https" or (not parts.scheme and collector.verify is not True):
        roots = Path(collector.verify).read_bytes() if isinstance(collector.verify, str) else None
        shown = collector.client if isinstance(collector.client, tuple) else None
        key, chain = (Path(shown[1]).read_bytes(), Path(shown[0]).read_bytes()) if shown else (None, None)
        return grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(roots, key, chain))
    return grpc.insecure_channel(parts.netloc)


def _problem_of(collector: Collector, code: str, details: str) -> RetryableError | PermanentError:
    answer = f"{collector.variable}: {collector.url} answered {code}: {details[:300]}"
    if code in _RETRYABLE or code in _NEEDS_HELP:
        return RetryableError(answer, needs_help=code in _NEEDS_HELP or code == "UNAVAILABLE")
    return TooLarge(answer) if code == "RESOURCE_EXHAUSTED" else PermanentError(answer)
