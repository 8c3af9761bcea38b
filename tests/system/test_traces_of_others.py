"""Traces that the app opens itself, and its annotations of requests through MLflow's own functions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Trace

from tests.apps.launch import connected, running
from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer, eventually

pytestmark = pytest.mark.xdist_group("traces-of-others")

TARGET = "tests.apps.others_app:app"


@pytest.fixture(scope="module")
def app(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app that also traces by itself."""
    traces = Traces(server.uri, f"others-{uuid.uuid4().hex}")
    folder = tmp_path_factory.mktemp("others")
    with running("asgi", TARGET, folder, traces, **connected(traces, server.uri)) as running_app:
        yield running_app


def named(app: RunningApp, name: str) -> Trace:
    """Wait for the one trace with this name."""
    query = f"tags.`mlflow.traceName` = '{name}'"
    eventually(lambda: app.traces.search(f"{query} AND span.name LIKE '%'"), name)
    (trace,) = app.traces.search(query)
    return trace


def test_traces_at_import_are_stored(app: RunningApp) -> None:
    """By the same delivery: in the experiment that the environment names, with all their spans."""
    trace = named(app, "after-the-middleware")

    assert {span.name for span in trace.data.spans} == {"after-the-middleware", "read"}
    assert "client_request_id" not in trace.info.tags


def test_traces_of_the_apps_own_threads_are_stored(app: RunningApp) -> None:
    """Without a request, and with their own annotations."""
    app.get("/background")

    trace = named(app, "nightly")
    assert trace.info.tags["job"] == "reindex"
    assert trace.info.trace_metadata["kb"] == "2026-11"
    assert trace.data.spans[0].inputs == {"documents": 3}


def test_mlflows_own_annotations_of_a_request_win(app: RunningApp, request_id: str) -> None:
    """Values of `mlflow.update_current_trace` beat the headers, and are found by tag, metadata and attribute."""
    app.get("/update", x_request_id=request_id, x_session_id="from-the-header", x_user_id="header-user")

    trace = app.traces.one(request_id)
    wanted = {"mlflow.trace.session": "from-mlflow", "mlflow.trace.user": "mlflow-user"}
    assert trace.info.tags.items() >= {**wanted, "plan": "pro"}.items()
    assert trace.info.trace_metadata.items() >= wanted.items()
    attributes = trace.data.spans[0].attributes
    assert (attributes["session.id"], attributes["user.id"]) == ("from-mlflow", "mlflow-user")


def test_mlflows_own_flush_waits_until_all_is_stored(app: RunningApp) -> None:
    """When `mlflow.flush_trace_async_logging` returns, the server has the trace."""
    trace_id = app.get("/wait-until-stored").json()["trace_id"]

    assert trace_id in {trace.info.trace_id for trace in app.traces.search()}


def test_the_experiment_that_the_app_chooses_is_used(server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """`mlflow.set_experiment` at start-up beats the environment, for requests and all other traces of the process."""
    chosen, other = (Traces(server.uri, f"others-{uuid.uuid4().hex}") for _ in range(2))
    variables = {**connected(other, server.uri), "APP_EXPERIMENT": chosen.experiment}

    with running("asgi", TARGET, tmp_path, chosen, **variables) as app:
        app.get("/update", x_request_id=request_id)

        assert app.traces.one(request_id).info.experiment_id == chosen.experiment_id
        for name in ("before-the-middleware", "after-the-middleware"):
            assert named(app, name).info.experiment_id == chosen.experiment_id
        assert other.search() == []
