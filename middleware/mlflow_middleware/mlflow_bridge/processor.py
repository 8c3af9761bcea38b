"""The span processor that replaces MLflow's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities.run import Run
from mlflow.entities.span import create_mlflow_span
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.environment_variables import MLFLOW_TRACE_TIMEOUT_SECONDS, MLFLOW_USE_DEFAULT_TRACER_PROVIDER
from mlflow.tracing import provider
from mlflow.tracing.context import _USER_TRACE_CONTEXT, get_configured_trace_metadata, get_configured_trace_tags
from mlflow.tracing.fluent import _set_last_active_trace_id
from mlflow.tracing.processor.base_mlflow import BaseMlflowSpanProcessor
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracing.utils import generate_mlflow_trace_id_from_otel_trace_id, get_otel_attribute
from mlflow.tracing.utils.environment import resolve_env_metadata
from mlflow.tracking import fluent
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.trace import SpanContext

from mlflow_middleware.mlflow_bridge import active, context, registry, span_attributes, tracking_client
from mlflow_middleware.mlflow_bridge.earlier import mark
from mlflow_middleware.mlflow_bridge.exporter import Exporter
from mlflow_middleware.mlflow_bridge.ids import being_materialized, take_ids_of_the_system
from mlflow_middleware.mlflow_bridge.inside import inside
from mlflow_middleware.mlflow_bridge.inside import mark as mark_wordless
from mlflow_middleware.mlflow_bridge.materialize import root_of
from mlflow_middleware.mlflow_bridge.pending import PendingTrace
from mlflow_middleware.mlflow_bridge.root import Root
from mlflow_middleware.mlflow_bridge.span_attributes import is_local_root
from mlflow_middleware.mlflow_bridge.tracking_client import is_slim
from mlflow_middleware.mlflow_bridge.uris import is_databricks
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.record import Surroundings, TraceRecord

logger = logging.getLogger("mlflow_middleware")

SCOPE = "mlflow_middleware"
"""The instrumentation scope of the root spans of requests."""

_PROPAGATES: Any = getattr(mlflow.environment_variables, "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT", None)
"""Whether MLflow's current span is also OpenTelemetry's, if MLflow has that option (3.15)."""


class Processor(BaseMlflowSpanProcessor):
    """MLflow's own span processor with four differences.

    It never requests the experiment from the server. It treats a span under a remote parent as the local root of the
    trace. It needs no lock of its own, which a fork could leave locked. And it leaves the work at the end of a trace to
    the sender.

    Attributes:
        metadata: The metadata of each trace: where it came from.
        is_lazy: Whether the objects of a request's root may be created on demand.
        is_for_databricks: Whether the traces go to a Databricks workspace.
    """

    def __init__(
        self,
        tracking_uri: str,
        put: Callable[[PendingTrace], None],
        queue: object,
        exports_metrics: bool | None = None,
    ) -> None:
        exporter = Exporter(tracking_uri, put, queue)
        self._exports_metrics = provider.should_export_otlp_metrics() if exports_metrics is None else exports_metrics
        super().__init__(exporter, export_metrics=self._exports_metrics)
        context.set_isolated(MLFLOW_USE_DEFAULT_TRACER_PROVIDER.get() and not (_PROPAGATES and _PROPAGATES.get()))
        context.set_unified(not MLFLOW_USE_DEFAULT_TRACER_PROVIDER.get())
        if not context.is_isolated():  # the tracer provider may be the app's
            take_ids_of_the_system()
        self._is_slim = is_slim()
        self.metadata: dict[str, str] = {**resolve_env_metadata(), keys.SCHEMA_VERSION: keys.SCHEMA}
        self._manager = InMemoryTraceManager.get_instance()
        self.is_lazy = not (self._exports_metrics or MLFLOW_TRACE_TIMEOUT_SECONDS.get())
        self.is_for_databricks = is_databricks(tracking_uri)

    def _metadata_of(self, run: Run | None) -> dict[str, Any]:
        metadata: dict[str, Any]
        if not self._is_slim:
            metadata = self._get_basic_trace_metadata()
            return metadata
        # without the prediction context, whose imports fail in the slim package
        metadata = {**self.metadata}
        if run:
            metadata[keys.SOURCE_RUN] = run.info.run_id
        if model_id := fluent._get_active_model_id_global():
            metadata[keys.MODEL_ID] = model_id
        return {**metadata, **(get_configured_trace_metadata() or {})}

    def _get_basic_trace_tags(self, span: ReadableSpan | _Unnamed) -> dict[str, Any]:
        if not self._is_slim:
            tags: dict[str, Any] = super()._get_basic_trace_tags(span)
            return tags
        return {**(get_configured_trace_tags() or {}), keys.NAME: span.name}

    def _register_trace(self, root_span: Span) -> TraceInfo:
        begun = being_materialized()
        info = self._info_of_request(begun.record) if begun else self._info_of(root_span)
        mark(info, root_span)
        otel_id = root_span.context.trace_id
        with self._manager._lock:  # several requests may continue one trace, and each begins with a local root
            if begun or self._manager.get_mlflow_trace_id_from_otel_id(otel_id) is None:
                self._manager.register_trace(otel_id, info)
        return info

    def _info_of_request(self, record: TraceRecord) -> TraceInfo:
        return TraceInfo(
            trace_id=record.trace_id,
            trace_location=TraceLocation.from_experiment_id(record.experiment_id),
            request_time=record.start_time // 1_000_000,
            execution_duration=None,
            state=TraceState.IN_PROGRESS,
            trace_metadata={**self.metadata},
            tags={},
        )

    def _info_of(self, root_span: Span) -> TraceInfo:
        run = fluent._get_latest_active_run()
        return TraceInfo(
            trace_id=generate_mlflow_trace_id_from_otel_trace_id(root_span.context.trace_id),
            trace_location=TraceLocation.from_experiment_id(
                _experiment_id(root_span, provider._MLFLOW_TRACE_USER_DESTINATION.get(), run)
            ),
            request_time=(root_span.start_time or 0) // 1_000_000,
            execution_duration=None,
            state=TraceState.IN_PROGRESS,
            trace_metadata=self._metadata_of(run),
            tags=self._get_basic_trace_tags(root_span),
            client_request_id=around.client_request_id if (around := inside.get()) else None,
        )

    def begin(self, record: TraceRecord) -> None:
        """Apply to a request's trace the values that MLflow gives to each new trace."""
        run = fluent._get_latest_active_run()
        around = inside.get()
        record.experiment_id = _chosen_experiment(provider._MLFLOW_TRACE_USER_DESTINATION.get(), run)
        if record.settings.experiment:
            record.go_to(record.experiment_id)
        if run or around or not self._is_slim or _USER_TRACE_CONTEXT.get() or fluent._get_active_model_id_global():
            tags = self._get_basic_trace_tags(_Unnamed())
            known = around.client_request_id if around else None
            record.surroundings = Surroundings(tags, self._metadata_of(run), known)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if is_local_root(span):
            trace_id = self._manager.get_mlflow_trace_id_from_otel_id(span.context.trace_id)
        else:
            trace_id = registry.trace_id_of(self._manager, span.context.trace_id)
            if trace_id is None:
                return
            if keys.EXPERIMENT_ID in span_attributes.attributes_of(span):
                _follow_destination(span)
        if trace_id is None:
            trace_id = self._register_trace(span).trace_id
            if forked_in := context.forked_in():
                span.add_link(SpanContext(*forked_in, is_remote=True))
        live = create_mlflow_span(span, trace_id)
        mark_wordless(live)
        with self._manager._lock:  # ``register_span`` would decode the trace id again
            trace = self._manager._traces.get(trace_id)
            if trace is None and is_local_root(span):  # the last span of another request has just ended it
                self._register_trace(span)
                trace = self._manager._traces.get(trace_id)
            if trace is not None:
                trace.span_dict[f"{span.get_span_context().span_id:016x}"] = live

    def on_end(self, span: ReadableSpan) -> None:
        if self._exports_metrics:
            self._record_metrics(span)
        if being_materialized():
            return
        if root := self._request_of(span):
            root.ended_elsewhere(span.end_time or 0)
            return
        if is_local_root(span):
            _set_last_active_trace_id(self._manager.get_mlflow_trace_id_from_otel_id(span.context.trace_id))
        self.span_exporter.export((span,))  # the exporter sends no requests that would need suppression

    def _request_of(self, span: ReadableSpan) -> Root | None:
        if not _is_ours(span):
            return None
        trace = self._manager._traces.get(self._manager.get_mlflow_trace_id_from_otel_id(span.context.trace_id))
        live = trace.span_dict.get(f"{span.context.span_id:016x}") if trace else None
        return root_of(live) if live else None

    def _record_metrics(self, span: ReadableSpan) -> None:
        try:
            self.record_metrics_for_span(span)
        except ImportError as error:
            self._exports_metrics = False
            logger.warning(
                "span metrics are not exported to OTEL_EXPORTER_OTLP_METRICS_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT; "
                "to have them there, install opentelemetry-exporter-otlp: %s",
                error,
            )


def _is_ours(span: ReadableSpan) -> bool:
    return span.instrumentation_scope is not None and span.instrumentation_scope.name == SCOPE


class _Unnamed:
    """The span that MLflow reads the name of a nameless root from."""

    name = ""


def _follow_destination(span: Span) -> None:
    """Direct a request's trace to the ``@mlflow.trace(trace_destination=...)`` of a span directly below its root."""
    root = registry.in_flight.get(span.context.trace_id)
    if root and span.parent and span.parent.span_id == root.record.ids.span_id:
        active.direct(root, str(get_otel_attribute(span, keys.EXPERIMENT_ID)))


def _experiment_id(span: ReadableSpan, destination: object, run: Run | None) -> str | None:
    """Return the experiment that the app chose for this trace; None leaves the choice to the environment.

    The order is that of ``mlflow.tracing.utils.get_experiment_id_for_trace``, without its last step, a request to the
    server.
    """
    attributes = span_attributes.attributes_of(span)
    if attributes and (experiment_id := get_otel_attribute(span, keys.EXPERIMENT_ID)):
        return str(experiment_id)
    return _chosen_experiment(destination, run)


def _chosen_experiment(destination: object, run: Run | None) -> str | None:
    if experiment_id := getattr(destination, "experiment_id", None):
        return str(experiment_id)
    if run:
        return str(run.info.experiment_id)
    return tracking_client.active_experiment_id()
