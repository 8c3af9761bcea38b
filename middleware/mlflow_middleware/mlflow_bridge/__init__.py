"""The bridge to MLflow: the only package that touches what MLflow and the OpenTelemetry SDK keep private.

It opens the root span of a request, hands every finished trace of the process to our delivery, and asks the tracking
server. What the installed MLflow cannot do is left out (`found`): the rest of the middleware need not know.
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
"""How requests are traced, how the server is asked, and what was found of MLflow."""

open_root_span = tracing.open_root_span
leave = tracing.leave
resume = tracing.resume
current_span = tracing.current_span


_silence = guarded(tracing.silence)


def silence() -> Undo:
    """Make every MLflow span opened from here a no-op; returns what undoes it, in the same context. Never raises."""
    undo = _silence()
    return guarded(undo) if undo else _nothing


@guarded
def silence_thread() -> None:
    """Let this thread's own requests be followed by nobody: neither MLflow, nor what instruments HTTP clients."""
    silence()
    from opentelemetry.context import attach, set_value

    attach(set_value("suppress_instrumentation", True))  # https://opentelemetry.io/docs/specs/otel/context/


def _nothing() -> None:
    pass


def found_traces(reply: dict[str, Any]) -> list[TraceInfo]:
    """The traces that ``POST /api/3.0/mlflow/traces/search`` answered with, without assessments of unknown kinds."""
    from mlflow_middleware.mlflow_bridge import search

    return search.found_traces(reply)


def stored_trace(tracking_uri: str, trace_id: str) -> Trace | None:
    """One trace, read back with its spans: see `reading.stored_trace`."""
    from mlflow_middleware.mlflow_bridge import reading

    return reading.stored_trace(tracking_uri, trace_id)


def is_whole(trace: Trace) -> bool:
    """Whether a trace that was read has its info and all of its spans."""
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
