"""Runs and models that become active inside a request, as MLflow's functions make them so in the full package."""

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
    """What ``mlflow.start_run`` makes."""
    info = RunInfo(run_id, "7", "jane", "RUNNING", 1, None, "active")
    return ActiveRun(Run(info, RunData()))


def model(model_id: str) -> ActiveModel:
    """What ``mlflow.set_active_model`` makes."""
    return ActiveModel(LoggedModel("7", model_id, "bot", "there", 1, 1), set_by_user=True)


@pytest.mark.parametrize("is_asked", [False, True], ids=["not asked for", "asked for"])
def test_a_request_is_linked_to_what_begins_inside(is_asked: bool) -> None:
    """Whether MLflow's objects for it are made or not; to the last of several, and to that run's experiment."""
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


def test_what_the_app_says_itself_comes_first() -> None:
    """As it does for any other metadata."""
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


def test_what_begins_outside_is_linked_to_no_request() -> None:
    """Nor to one that has been answered, or that runs beside it."""
    with captured_traces() as traces:
        trace = RequestTrace.open(Exchange("GET", "/", {}), Settings.load())
        run("r-1")
        trace.activate()
        trace.deactivate()
        run("r-2")
        trace.finish()
        run("r-3")

    assert "mlflow.sourceRun" not in traces[0].info.trace_metadata
