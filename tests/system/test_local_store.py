"""Full MLflow without a server, as most people start: a database of its own, or its default store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import requests
from mlflow.version import IS_TRACING_SDK_ONLY

from tests.servers import PATIENT, ROOT, clean_environment, command_for, free_port, serving

pytestmark = pytest.mark.skipif(IS_TRACING_SDK_ONLY, reason="the full mlflow package is not installed")

ASK = """
import json, mlflow, sys
experiment = mlflow.get_experiment_by_name(sys.argv[1])
found = mlflow.search_traces(locations=[experiment.experiment_id], filter_string=sys.argv[2], return_type="list")
print(json.dumps([
    [trace.info.client_request_id, trace.info.state.name, len(trace.data.spans), trace.info.trace_metadata]
    for trace in found
]))
"""


def stored(folder: Path, experiment: str, query: str, **variables: str) -> list[tuple[str, str, int, dict[str, str]]]:
    """Return MLflow's traces there: request id, state, number of spans and metadata of each trace."""
    command = [sys.executable, "-c", ASK, experiment, query]
    environment = clean_environment(**variables)
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    found: list[tuple[str, str, int, dict[str, str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-workers", "gunicorn-sync", "gunicorn-preload"])
@pytest.mark.parametrize(
    ("where", "variables"),
    [
        ("database", {"MLFLOW_TRACKING_URI": "sqlite:///x.db"}),
        ("named", {"MLFLOW_TRACKING_URI": "sqlite:///x.db", "MLFLOW_EXPERIMENT_NAME": "chat"}),
        ("unset", {}),
        ("folder", {"MLFLOW_TRACKING_URI": "file:./traces", "MLFLOW_ALLOW_FILE_STORE": "true"}),
    ],
)
def test_sigterm_right_after_20_requests_loses_none(
    tmp_path: Path, kind: str, where: str, variables: dict[str, str]
) -> None:
    """The first 20 of a new database: all of them are whole, and found by their user."""
    if kind != "uvicorn" and where in ("named", "folder"):
        pytest.skip("once is enough")
    name, port = uuid.uuid4().hex, free_port()
    environment = clean_environment(**variables, **PATIENT)
    with serving(command_for(kind, port), environment, tmp_path / "log", port, folder=tmp_path) as (process, url):
        for number in range(20):
            headers = {"X-Request-ID": f"{name}-{number}", "X-User-ID": "jane", "X-Session-ID": "s-1"}
            assert requests.get(f"{url}/status/200", headers=headers, timeout=60).status_code == 200
        process.stop(signal.SIGTERM, timeout=150)

    experiment = variables.get("MLFLOW_EXPERIMENT_NAME", "Default")
    found = stored(tmp_path, experiment, "tags.`mlflow.trace.user` = 'jane'", **variables)
    assert {request_id for request_id, *_ in found} == {f"{name}-{number}" for number in range(20)}, process.output()
    assert {(state, spans) for _, state, spans, _ in found} == {("OK", 1)}
    assert {metadata["mlflow.trace.session"] for *_, metadata in found} == {"s-1"}


def test_a_database_that_cannot_be_made_stops_no_app(tmp_path: Path) -> None:
    """It answers, the log has the reason why traces wait, and its exit does not wait for them."""
    port = free_port()
    environment = clean_environment(
        MLFLOW_TRACKING_URI="sqlite:////dev/null/x.db", MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="120"
    )
    with serving(command_for("uvicorn", port), environment, tmp_path / "log", port, folder=tmp_path) as (process, url):
        assert requests.get(f"{url}/status/200", timeout=60).status_code == 200
        process.stop(signal.SIGTERM, timeout=60)

    assert "MLFLOW_TRACKING_URI=sqlite:////dev/null/x.db cannot be used" in process.output()


def test_a_database_is_written_where_no_file_can_be_made_beside_it(tmp_path: Path) -> None:
    """In a container with a read-only file system, the lock of a new database cannot be created."""
    script = """
import tempfile, mlflow
tempfile.tempdir = "/dev/null"
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
with mlflow.start_span("work"):
    mlflow.update_current_trace(tags={"plan": "pro"})
assert delivery.flush(120)
"""
    environment = clean_environment(MLFLOW_TRACKING_URI="sqlite:///x.db")
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, timeout=150, check=True)

    assert len(stored(tmp_path, "Default", "tags.plan = 'pro'", MLFLOW_TRACKING_URI="sqlite:///x.db")) == 1


def test_check_reports_that_there_is_no_server(tmp_path: Path) -> None:
    """Also if nothing is configured; and it leaves no database behind."""
    command = [sys.executable, "-m", "tests.apps.patient_check", "mlflow_middleware.cli", "check"]
    done = subprocess.run(
        command,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "mlflow.db is not a server: full MLflow writes to it directly" in done.stdout, done.stdout + done.stderr
    assert os.listdir(tmp_path) == []


def test_feedback_reports_that_there_is_no_server(tmp_path: Path) -> None:
    """It names the remedy, as the log does."""
    command = [sys.executable, "-m", "mlflow_middleware.cli", "feedback", "tr-" + 32 * "0", "--value", "true"]
    environment = clean_environment(MLFLOW_TRACKING_URI="sqlite:///x.db")
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )

    assert "mlflow-middleware feedback: feedback needs an MLflow server" in done.stderr, done.stderr
    assert "MLFLOW_TRACKING_URI=sqlite:///x.db is not the address of a server" in done.stderr


def test_a_later_process_adds_spans_to_a_trace_of_the_database(tmp_path: Path) -> None:
    """The stored values of the trace stay, its duration included."""
    script = """
import sys, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request_trace import RequestTrace, continue_trace, job_trace, start
from mlflow_middleware.settings import Settings
settings = Settings.load(trace_token_secret="0123456789abcdef")
start(settings)
if len(sys.argv) == 1:
    request = RequestTrace.open(Exchange("GET", "/", {"x-user-id": "jane"}), settings)
    request.response_started(200)
    print(dict(request.response_headers())["X-MLflow-Trace-Token"])
    request.finish()
else:
    with job_trace(name="own"), continue_trace(sys.argv[1]), mlflow.start_span("late"):
        pass
assert delivery.flush(120)
"""
    variables = {"MLFLOW_TRACKING_URI": "sqlite:///x.db"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", script, *arguments]
        environment = clean_environment(**variables)
        done = subprocess.run(command, env=environment, cwd=tmp_path, stdout=-1, text=True, timeout=150, check=True)
        return done.stdout.split()[-1] if done.stdout else ""

    token = run()
    query = "tags.`mlflow.trace.user` = 'jane'"
    (before,) = stored(tmp_path, "Default", query, **variables)
    run(token)

    (after,) = stored(tmp_path, "Default", query, **variables)
    assert (before[2], after[2]) == (1, 2)
    assert (after[:2], after[3]) == (before[:2], before[3])
    assert len(stored(tmp_path, "Default", "name = 'own'", **variables)) == 1


def test_a_folder_gets_all_without_a_deadline(tmp_path: Path) -> None:
    """The first trace is stored, and its spans as a file: the folder does not take them as a database does."""
    script = """
import mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
for _ in range(3):
    with mlflow.start_span("work"):
        pass
    assert delivery.flush(120)
assert not delivery.stats().dropped
"""
    variables = {"MLFLOW_TRACKING_URI": "file:./traces", "MLFLOW_ALLOW_FILE_STORE": "true"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command,
        env=clean_environment(**variables),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )

    assert [spans for *_, spans, _ in stored(tmp_path, "Default", "name = 'work'", **variables)] == [1, 1, 1]
    assert done.stderr == ""


def test_a_folder_takes_a_trace_again_that_an_attempt_left_half_stored(tmp_path: Path) -> None:
    """A full disk ends an attempt after the trace's first file; the next finds that file there."""
    script = """
import pathlib, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
with mlflow.start_span("first"):
    pass
assert delivery.flush(120)
with mlflow.start_span("work") as span:
    trace = pathlib.Path("traces/0/traces", span.trace_id)
    trace.mkdir()
    (trace / "trace_info.yaml").touch()
assert delivery.flush(120)
"""
    variables = {"MLFLOW_TRACKING_URI": "file:./traces", "MLFLOW_ALLOW_FILE_STORE": "true"}
    environment = clean_environment(**variables)
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=tmp_path, timeout=150, check=True)

    assert [spans for *_, spans, _ in stored(tmp_path, "Default", "name = 'work'", **variables)] == [1]
