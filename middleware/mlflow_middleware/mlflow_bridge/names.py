"""The list of all private names of MLflow, the OpenTelemetry SDK and CPython that this package uses.

Each is a debt: it may change with any release. `missing` checks them when the bridge is loaded; a test compares the
list with the sources.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Name(NamedTuple):
    """A private name.

    Attributes:
        owner: A module, ``module:name`` of an object in it, or a key of `SAMPLES`.
        name: The name in the owner.
        since: The first version of mlflow-tracing (checked from 3.6), of OpenTelemetry's SDK (from 1.16) or of Python
            that has it.
        purpose: Its use.
        is_optional: Whether the bridge works without it.
    """

    owner: str
    name: str
    since: str
    purpose: str
    is_optional: bool = False


TRACING = (
    # MLflow: where our span processor is put in
    Name(
        "mlflow.tracing.provider", "_get_mlflow_span_processor", "3.6", "replaced, so that MLflow builds our processor"
    ),
    Name("mlflow.tracing.provider", "_get_tracer", "3.6", "the tracer that requests' roots are opened with"),
    Name("mlflow.tracing.provider", "_MLFLOW_TRACE_USER_DESTINATION", "3.6", "what set_destination() chose"),
    Name("mlflow.tracing.provider:provider", "_isolated_tracer_provider", "3.6", "whether the tracer is still current"),
    Name("mlflow.tracing.provider:provider.once", "_done", "3.6", "whether MLflow has built its provider"),
    Name("mlflow.tracing.provider:mlflow_runtime_context", "_current_context", "3.9", "MLflow's current span", True),
    # MLflow: what a trace gets when it begins and ends
    Name("mlflow.tracing.context", "_USER_TRACE_CONTEXT", "3.11", "tags and metadata of mlflow.tracing.context()"),
    Name("mlflow.tracing.fluent", "_set_last_active_trace_id", "3.6", "mlflow.get_last_active_trace_id()"),
    Name(
        "mlflow.tracing.sampling", "_SAMPLING_RATIO_OVERRIDE", "3.10", "@mlflow.trace(sampling_ratio_override=)", True
    ),
    Name("mlflow.tracing.utils.truncation", "_get_max_length", "3.6", "how long a preview may be"),
    Name(
        "mlflow.tracking.fluent",
        "_active_experiment_id",
        "3.8",
        "what set_experiment() chose; set to the environment's",
    ),
    Name("mlflow.tracking.fluent", "_get_active_model_id_global", "3.6", "what set_active_model() chose"),
    Name("mlflow.tracking.fluent", "_get_latest_active_run", "3.6", "the run that a trace belongs to"),
    Name(
        "mlflow.tracing.processor.base_mlflow:BaseMlflowSpanProcessor", "_get_basic_trace_metadata", "3.6", "metadata"
    ),
    Name("mlflow.tracing.processor.base_mlflow:BaseMlflowSpanProcessor", "_get_basic_trace_tags", "3.6", "tags"),
    # MLflow: spans, and the registry of traces in flight
    Name("mlflow.entities:LiveSpan()", "_span", "3.6", "the span of OpenTelemetry's SDK"),
    Name("mlflow.entities:LiveSpan()", "_attachments", "3.11", "files taken out of inputs and outputs"),
    Name(
        "mlflow.tracing.trace_manager:InMemoryTraceManager()",
        "_lock",
        "3.8",
        "held while traces are moved, and over forks",
    ),
    Name("mlflow.tracing.trace_manager:InMemoryTraceManager()", "_traces", "3.6", "the traces in flight"),
    Name(
        "mlflow.tracing.trace_manager:InMemoryTraceManager()",
        "_otel_id_to_mlflow_trace_id",
        "3.8",
        "the same, by other ids",
    ),
    # MLflow: the slim package and forks
    Name("mlflow.tracking._tracking_service.utils", "_get_default_tracking_uri", "3.7", "fails in the slim package"),
    Name("mlflow.tracing.provider:provider", "_isolated_tracer_provider_once", "3.6", "unlocked in a forked child"),
    Name("mlflow.tracing.provider:provider", "_global_provider_init_once", "3.9", "unlocked in a forked child"),
    Name("mlflow.tracing.provider:provider.once", "_Once__lock", "3.6", "unlocked in a forked child"),
    Name("_frozen_importlib", "_module_locks", "3.10", "forgotten in a forked child (CPython)", True),
    # OpenTelemetry's SDK
    Name("opentelemetry.sdk.trace:Tracer()", "_span_limits", "1.16", "whether attributes are limited"),
    Name(
        "opentelemetry.sdk.trace:SynchronousMultiSpanProcessor()", "_span_processors", "1.16", "whether others look on"
    ),
    Name("opentelemetry.sdk.trace:Span()", "_attributes", "1.16", "attributes, without a copy"),
    Name(
        "opentelemetry.attributes:BoundedAttributes()",
        "_dict",
        "1.16",
        "attributes, without a copy",
    ),
)
"""The names that tracing needs."""

ARTIFACTS = (
    Name("mlflow.tracing.client:TracingClient", "_get_artifact_repo_for_trace", "3.6", "where attachments are stored"),
    Name(
        "mlflow.tracing.client:TracingClient", "_upload_trace_data", "3.6", "spans, on servers that take none by OTLP"
    ),
)
"""Names that only Databricks workspaces, attachments and servers older than 3.4 need; they are resolved when used."""

UNDOCUMENTED = (
    ("mlflow.tracing.provider:provider", "get"),
    ("mlflow.tracing.provider:provider", "reset"),
    ("mlflow.tracing.provider:provider", "set"),
    ("mlflow.tracing.provider", "get_current_context"),
    ("mlflow.tracing.provider", "is_tracing_enabled"),
    ("mlflow.tracing.provider", "should_use_otlp_exporter"),
    ("mlflow.tracing.trace_manager", "get_trace_cache_with_timeout"),
)
"""Undocumented names that look public; no import would show that one is missing."""

ALL = (*TRACING, *ARTIFACTS)


def missing() -> list[str]:
    """Return the names that tracing needs and that the installed packages lack."""
    needed = [(name.owner, name.name) for name in TRACING if not name.is_optional]
    return [path(owner, name) for owner, name in (*needed, *UNDOCUMENTED) if not is_there(owner, name)]


def path(owner: str, name: str) -> str:
    """Return a name in readable form."""
    return f"{owner.replace(':', '.')}.{name}"


def is_there(owner: str, name: str) -> bool:
    """Return whether the installed packages have a name."""
    try:
        return hasattr(_owner(owner), name)
    except Exception:  # the owner is missing
        return False


def _owner(owner: str) -> Any:
    if owner in SAMPLES:
        return SAMPLES[owner]()
    module, _, path = owner.partition(":")
    return functools.reduce(getattr, path.split(".") if path else (), importlib.import_module(module))


@functools.cache
def _sample_span() -> Any:
    """Return a span of OpenTelemetry's SDK that is never exported."""
    return _sample_tracer().start_span("sample")


@functools.cache
def _sample_tracer() -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    from mlflow_middleware.mlflow_bridge.ids import CountingIds

    provider = TracerProvider(  # nothing depends on the environment
        sampler=ALWAYS_ON,
        resource=Resource.get_empty(),
        shutdown_on_exit=False,
        id_generator=CountingIds(),
        span_limits=SpanLimits(max_span_attributes=128),
    )
    return provider.get_tracer("sample")


def _sample_live_span() -> Any:
    from mlflow.entities import LiveSpan

    return LiveSpan(_sample_span(), "tr-0")


def _manager() -> Any:
    from mlflow.tracing.trace_manager import InMemoryTraceManager

    return InMemoryTraceManager.get_instance()


SAMPLES: dict[str, Callable[[], Any]] = {
    "mlflow.entities:LiveSpan()": _sample_live_span,
    "mlflow.tracing.trace_manager:InMemoryTraceManager()": _manager,
    "opentelemetry.sdk.trace:Tracer()": _sample_tracer,
    "opentelemetry.sdk.trace:SynchronousMultiSpanProcessor()": lambda: _sample_tracer().span_processor,
    "opentelemetry.sdk.trace:Span()": _sample_span,
    "opentelemetry.attributes:BoundedAttributes()": lambda: _sample_span()._attributes,
}
"""Owners of names that only instances have."""
