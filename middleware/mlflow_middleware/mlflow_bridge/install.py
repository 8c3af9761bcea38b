"""The installation of our span processor instead of MLflow's."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.tracing import provider
from mlflow.tracing.processor.base_mlflow import BaseMlflowSpanProcessor
from mlflow.tracing.processor.otel import OtelSpanProcessor
from mlflow.tracking._tracking_service import utils as tracking_service

from mlflow_middleware.mlflow_bridge import active, context
from mlflow_middleware.mlflow_bridge.forks import survive_forks
from mlflow_middleware.mlflow_bridge.ids import SystemIds
from mlflow_middleware.mlflow_bridge.pending import PendingTrace
from mlflow_middleware.mlflow_bridge.processor import Processor
from mlflow_middleware.mlflow_bridge.registry import keep_traces_in_flight
from mlflow_middleware.mlflow_bridge.tracking_client import DEFAULT_URI, is_slim

# MLflow and requests import these only when a trace starts or is sent. A fork during an import leaves the import lock
# locked in the child forever, so they are imported here, before there are threads.
for _late in ("mlflow.tracing.processor.otel", "mlflow.tracking.request_header.registry", "netrc"):
    importlib.import_module(_late)


def rebuild() -> None:
    """Make MLflow rebuild its span processor for later traces."""
    if provider.provider.once._done and provider.is_tracing_enabled():
        provider.provider.reset()


def start(accepts: Callable[[str], bool], put: Callable[[PendingTrace], None], queue: object) -> None:
    """Make MLflow build its span processors with our exporter; a second call does nothing.

    This replaces the factory function rather than a processor: MLflow rebuilds its processors on ``set_experiment``,
    ``set_tracking_uri``, ``set_destination``, ``tracing.reset`` and ``enable``.

    Args:
        accepts: Returns whether our delivery serves a tracking URI; for others MLflow's own processor is built.
        put: Takes a finished trace; never blocks, never raises.
        queue: An object with ``flush(terminate=False)``, for ``mlflow.flush_trace_async_logging()``.
    """
    if is_slim():  # to find the default, MLflow searches for old data with a module that the slim package lacks
        tracking_service._get_default_tracking_uri = lambda: DEFAULT_URI
    original = provider._get_mlflow_span_processor
    if hasattr(original, "replaced_by_mlflow_middleware"):
        return
    _forget_missing_modules()
    keep_traces_in_flight()
    survive_forks()
    active.watch()

    @functools.wraps(original)
    def build(tracking_uri: str) -> BaseMlflowSpanProcessor:
        if not accepts(tracking_uri):
            return original(tracking_uri)
        return Processor(tracking_uri, put, queue)

    build.replaced_by_mlflow_middleware = True  # type: ignore[attr-defined]
    provider._get_mlflow_span_processor = build
    _send_to_collectors_ourselves(accepts)
    _give_ids_of_the_system()
    _leave_the_apps_provider()
    rebuild()


def _send_to_collectors_ourselves(accepts: Callable[[str], bool]) -> None:
    """Prevent MLflow from building a processor for OTLP's variables instead of, or in addition to, ours."""
    original = provider.should_use_otlp_exporter

    @functools.wraps(original)
    def is_for_mlflow() -> bool:
        return bool(original()) and not (_is_usual_destination() and accepts(mlflow.get_tracking_uri()))

    provider.should_use_otlp_exporter = is_for_mlflow


def _is_usual_destination() -> bool:
    """Return whether traces go to an experiment; for tables of Unity Catalog, MLflow's own processors stay."""
    chosen = provider._MLFLOW_TRACE_USER_DESTINATION.get()
    return chosen is None or hasattr(chosen, "experiment_id")


def _give_ids_of_the_system() -> None:
    """Make each tracer provider that MLflow builds take its ids from the operating system."""
    original = provider.provider.set

    @functools.wraps(original)
    def set_provider(tracer_provider: Any) -> None:
        if hasattr(tracer_provider, "id_generator"):
            tracer_provider.id_generator = SystemIds()
        original(tracer_provider)

    provider.provider.set = set_provider


def _leave_the_apps_provider() -> None:
    """Make MLflow's reset remove its processors from the app's tracer provider, instead of dropping the provider."""
    original = provider.provider.reset

    @functools.wraps(original)
    def reset() -> None:
        now = provider.provider.get()
        resource = getattr(now, "resource", None)
        if context.is_isolated() or resource is None or resource.attributes.get("telemetry.sdk.name") == "mlflow":
            original()
            return
        every: Any = now.get_tracer(__name__).span_processor
        mine = BaseMlflowSpanProcessor, OtelSpanProcessor
        every._span_processors = tuple(each for each in every._span_processors if not isinstance(each, mine))
        provider.provider.once._done = False

    provider.provider.reset = reset


def _forget_missing_modules() -> None:
    """Make the imports fail at once that MLflow retries for each root span and that slim MLflow lacks.

    This saves time, and avoids an import lock that can stay locked in a forked child.
    """
    if is_slim():
        for name in ("mlflow.pyfunc", "mlflow.pyfunc.context", "mlflow.agent", "mlflow.agent.hint"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
