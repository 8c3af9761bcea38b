"""The bridge to MLflow: the only package that uses private names of MLflow and the OpenTelemetry SDK.

It opens the root span of a request, passes every finished trace of the process to our delivery, and sends requests to
the tracking server. Features that the installed MLflow lacks are left out (`found`), transparently for the rest of the
middleware.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.mlflow_bridge.address import Address as Address
from mlflow_middleware.mlflow_bridge.interface import Entered as Entered
from mlflow_middleware.mlflow_bridge.interface import Left as Left
from mlflow_middleware.mlflow_bridge.interface import RootSpan as RootSpan
from mlflow_middleware.mlflow_bridge.interface import TracesInside as TracesInside
from mlflow_middleware.mlflow_bridge.interface import Undo as Undo
from mlflow_middleware.mlflow_bridge.loading import Level as Level
from mlflow_middleware.mlflow_bridge.loading import load
from mlflow_middleware.mlflow_bridge.no_client import NoClient as NoClient

if TYPE_CHECKING:
    from mlflow.entities import Trace
    from mlflow.entities.trace_info import TraceInfo

    from mlflow_middleware.mlflow_bridge.pending import PendingTrace as PendingTrace

tracing, client, found = load()
"""The tracing of requests, the client of the server, and the state of the installed MLflow."""

open_root_span = tracing.open_root_span
leave = tracing.leave
resume = tracing.resume
current_span = tracing.current_span


_silence = guarded(tracing.silence)


def silence() -> Undo:
    """Make every MLflow span opened from here a no-op; return an undo function for the same context. Never raise."""
    undo = _silence()
    return guarded(undo) if undo else _nothing


@guarded
def silence_thread() -> None:
    """Suppress the tracing of this thread's own requests, by MLflow and by instrumented HTTP clients."""
    silence()
    from opentelemetry.context import attach, set_value

    attach(set_value("suppress_instrumentation", True))  # https://opentelemetry.io/docs/specs/otel/context/


def _nothing() -> None:
    pass


def found_traces(reply: dict[str, Any]) -> list[TraceInfo]:
    """Return the traces of a ``POST /api/3.0/mlflow/traces/search`` response, without assessments of unknown kinds."""
    from mlflow_middleware.mlflow_bridge import search

    return search.found_traces(reply)


def stored_trace(tracking_uri: str, trace_id: str) -> Trace | None:
    """Read one trace with its spans: see `reading.stored_trace`."""
    from mlflow_middleware.mlflow_bridge import reading

    return reading.stored_trace(tracking_uri, trace_id)


def is_whole(trace: Trace) -> bool:
    """Return whether a trace that was read has its info and all its spans."""
    from mlflow_middleware.mlflow_bridge import reading

    return reading.is_whole(trace)


def upload_spans(tracking_uri: str, reply: dict[str, Any], otlp: bytes, *, timeout: float) -> None:
    """Store a trace's spans as an artifact: see `artifacts.upload_spans`."""
    from mlflow_middleware.mlflow_bridge import artifacts

    artifacts.upload_spans(tracking_uri, reply, otlp, timeout=timeout)


def upload_attachments(tracking_uri: str, reply: dict[str, Any], attachments: Mapping[str, bytes]) -> None:
    """Store a trace's attachments as artifacts: see `artifacts.upload_attachments`."""
    from mlflow_middleware.mlflow_bridge import artifacts

    artifacts.upload_attachments(tracking_uri, reply, attachments)
