"""Runs and models that become active inside a request, in the way of full MLflow's functions."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow
import pytest
from mlflow.entities import LoggedModel, Run, RunData, RunInfo
from mlflow.tracking.fluent import ActiveModel, ActiveRun, clear_active_model

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.settings import Settings
from mlflow_middleware.testing import captured_traces


@pytest.fixture(autouse=True)
def _no_active_model() -> Iterator[None]:
    yield
    clear_active_model()


def run(run_id: str) -> ActiveRun:
    """A run like that of ``mlflow.start_run``."""
    info = RunInfo(run_id, "7", "jane", "RUNNING", 1, None, "active")
    return ActiveRun(Run(info, RunData()))


def model(model_id: str) -> ActiveModel:
    """A model like that of ``mlflow.set_active_model``."""
    return ActiveModel(LoggedModel("7", model_id, "bot", "there", 1, 1), set_by_user=True)


@pytest.mark.parametrize("is_asked", [False, True], ids=["not asked for", "asked for"])
def test_a_request_is_linked_to_a_run_that_starts_inside(is_asked: bool) -> None:
    """With MLflow's objects for it or without; to the last of several, and to that run's experiment."""
    with captured_traces() as traces:
        trace = RequestTrace.open(Exchange("GET", "/", {}), Settings.load())
        trace.activate()
        if is_asked:
            assert mlflow.get_current_active_span() is not None
        run("r-1")
        with mlflow.start_span("child"):
            run("r-2")
        model("m-1")
        trace.deactivate()
        trace.finish()

    metadata = traces[0].info.trace_metadata
    assert (metadata["mlflow.sourceRun"], metadata["mlflow.modelId"]) == ("r-2", "m-1")
    assert traces[0].info.experiment_id == "7"


def test_the_apps_own_link_takes_priority() -> None:
    """As for any other metadata."""
    with captured_traces() as traces:
        trace = RequestTrace.open(Exchange("GET", "/", {}), Settings.load())
        trace.activate()
        mlflow.update_current_trace(metadata={"mlflow.sourceRun": "mine"}, model_id="m-9")
        run("r-1")
        model("m-1")
        trace.deactivate()
        trace.finish()

    metadata = traces[0].info.trace_metadata
    assert (metadata["mlflow.sourceRun"], metadata["mlflow.modelId"]) == ("mine", "m-9")


def test_a_run_outside_is_linked_to_no_request() -> None:
    """Nor is one in a request that has been answered, or that runs at the same time."""
    with captured_traces() as traces:
        trace = RequestTrace.open(Exchange("GET", "/", {}), Settings.load())
        run("r-1")
        trace.activate()
        trace.deactivate()
        run("r-2")
        trace.finish()
        run("r-3")

    assert "mlflow.sourceRun" not in traces[0].info.trace_metadata
