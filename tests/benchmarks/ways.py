"""The ways to trace an app, each as in its own documentation.

``WAY`` in the environment chooses one, ``CHILDREN`` how many child spans each request opens.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from tests.benchmarks.spans import CONTENT, Children, export_to_nowhere, mlflow_children, no_children, otel_children

logging.getLogger("mlflow_middleware").setLevel(logging.INFO)  # logs the outcome of the traces at exit
logging.basicConfig(level=logging.WARNING)

WAY = os.environ.get("WAY", "untraced")
CHILDREN = int(os.environ.get("CHILDREN", "0"))

REPLY = {"choices": [{"message": {"role": "assistant", "content": CONTENT}}]}


def _children() -> Children:
    if WAY == "untraced":
        return no_children
    return otel_children(CHILDREN) if WAY == "otel" else mlflow_children(CHILDREN)


def handler() -> Callable[[dict[str, Any], Mapping[str, str]], dict[str, Any]]:
    """Return the function that answers and does nothing but open spans; traced by hand if the way is."""
    open_children = _children()

    def answer(body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        open_children(body)
        return REPLY

    return by_hand(open_children) if WAY in ("mlflow", "nowhere") else answer


def by_hand(open_children: Children) -> Callable[[dict[str, Any], Mapping[str, str]], dict[str, Any]]:
    """Return the function that answers, traced as in MLflow's documentation."""
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    if WAY == "nowhere":
        export_to_nowhere()
    else:
        mlflow.set_experiment(os.environ["EXPERIMENT"])

    @mlflow.trace(name="POST /chats/{chat_id}")
    def traced(body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        mlflow.update_current_trace(
            client_request_id=headers.get("x-request-id"),
            tags={"environment": "production", "app_version": "1.2.3", "deployment_id": "d-7", "region": "eu-west-1"},
            metadata={
                "mlflow.trace.session": headers.get("x-session-id", ""),
                "mlflow.trace.user": headers.get("x-user-id", ""),
            },
        )
        open_children(body)
        return REPLY

    return traced  # type: ignore[no-any-return]


def instrument_by_opentelemetry() -> None:
    """Set the global tracer provider up to send OTLP to the MLflow server."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "chat"}))
    exporter = OTLPSpanExporter(
        endpoint=f"{os.environ['MLFLOW_TRACKING_URI']}/v1/traces",
        headers={"x-mlflow-experiment-id": os.environ["EXPERIMENT_ID"]},
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def ready() -> None:
    """Collect garbage after all imports. With 50,000 to 100,000 objects of modules, the first collection takes 20 to
    60 ms; it comes before the traffic here, in each way, not into one of the measured windows."""
    gc.collect()
