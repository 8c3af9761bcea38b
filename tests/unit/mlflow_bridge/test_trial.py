"""The trial of MLflow when the bridge is loaded."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import mlflow
import pytest
from mlflow.tracing import provider
from mlflow.tracing.config import get_config
from mlflow.tracing.trace_manager import InMemoryTraceManager

from mlflow_middleware.mlflow_bridge import context, processor, trial


def of_another_shape(first: Any, second: Any, third: Any) -> None:
    """Requires an argument that nobody passes."""


def test_an_mlflow_that_fits() -> None:
    """The trial passes, and leaves no trace behind."""
    seen: list[Any] = []
    config, last = get_config(), mlflow.get_last_active_trace_id()
    random.seed(42)
    drawn = random.random()
    random.seed(42)
    config.span_processors.append(seen.append)
    try:
        trial.run()
    finally:
        config.span_processors.remove(seen.append)

    manager = InMemoryTraceManager.get_instance()
    assert (len(manager._traces), len(manager._otel_id_to_mlflow_trace_id)) == (0, 0)
    assert (seen, mlflow.get_last_active_trace_id(), random.random()) == ([], last, drawn)


@pytest.mark.parametrize(
    "name", ["_get_mlflow_span_processor", "_get_tracer", "is_tracing_enabled", "get_current_context"]
)
def test_another_signature(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of a function of MLflow's provider."""
    monkeypatch.setattr(provider, name, of_another_shape)

    with pytest.raises(TypeError):
        trial.run()


@pytest.mark.parametrize("name", ["set_span_in_context", "detach_span_from_context"])
def test_another_way_to_make_a_span_current(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The trial includes silenced spans."""
    before = provider.get_current_context()
    monkeypatch.setattr(context, name, of_another_shape)

    with pytest.raises(TypeError):
        trial.run()

    assert provider.get_current_context() == before  # the app's spans are not silenced


@pytest.mark.parametrize(
    ("module", "name"),
    [(processor, "create_mlflow_span"), (processor, "TraceInfo")],
    ids=["span", "info"],
)
def test_another_signature_on_the_way(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """Whichever function takes other arguments."""
    monkeypatch.setattr(module, name, of_another_shape)

    with pytest.raises(TypeError):
        trial.run()
