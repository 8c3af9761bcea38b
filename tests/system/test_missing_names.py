"""An MLflow or OpenTelemetry without one of its names: the app starts, answers, logs it, and mostly is still traced."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Trace

from tests.conftest import Traces
from tests.servers import ROOT, MLflowServer, clean_environment, eventually

pytestmark = pytest.mark.heavy

SPARED = {
    "mlflow.protos.service_pb2.SearchTracesV3",
    "mlflow.tracing.client:TracingClient._get_artifact_repo_for_trace",
    "mlflow.tracing.client:TracingClient._upload_trace_data",
    "mlflow.utils.rest_utils.get_workspace_client",
}
"""Names that only searches, artifacts and Databricks need: requests are traced without them as usual."""


@dataclass
class Outcome:
    """The outcome of an app whose MLflow lacks a name."""

    name: str
    id: str
    lines: list[str]
    answer: str = ""
    level: str = ""
    error: str = ""


@pytest.fixture(scope="module")
def stored(server: MLflowServer) -> Traces:
    """Return the traces that these apps have stored."""
    return Traces(server.uri, f"missing-{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def outcomes(stored: Traces, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """One app for each name of the list, and for each that the bridge imports."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.missing_names", stored.experiment, str(tmp_path_factory.mktemp("logs"))],
        env=clean_environment(MLFLOW_TRACKING_URI=stored.uri),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [Outcome(**each) for each in json.loads(done.stdout)]


def test_every_app_starts_and_answers(outcomes: list[Outcome]) -> None:
    """Whichever name is missing."""
    assert len(outcomes) > 80
    assert [(each.name, each.error) for each in outcomes if each.answer != "answered answered answered"] == []


def test_it_is_logged_once(outcomes: list[Outcome]) -> None:
    """The line has the installed MLflow, the supported ones, and the failed features; without any, there is no line."""
    for each in outcomes:
        assert len(each.lines) == (each.level != "EVERYTHING"), each
        for line in each.lines:
            assert "which supports MLflow 3." in line
            assert "public functions, and its own exporter stays in place. Not available: " in line
            assert "pip install 'mlflow-tracing>=3." in line


def test_rarely_used_names_are_no_loss_for_others(outcomes: list[Outcome]) -> None:
    """Names for Databricks, artifacts and searches affect nothing else."""
    assert {each.name for each in outcomes if each.level == "EVERYTHING"} >= SPARED


def test_most_requests_are_stored_all_the_same(outcomes: list[Outcome], stored: Traces) -> None:
    """With identity, tags, inputs and outputs; the others are those whose name MLflow itself needs."""
    wanted = len(outcomes) * 6 // 10

    def complete() -> list[Trace]:
        return [trace for trace in stored.search("tags.plan = 'pro'") if is_complete(trace)]

    eventually(lambda: len(complete()) >= wanted, f"{wanted} of {len(outcomes)} traces", 60)


def is_complete(trace: Trace) -> bool:
    """Return whether a trace has the middleware's values for a request."""
    metadata: dict[str, Any] = trace.info.trace_metadata
    (root,) = trace.data.spans
    return (
        metadata.get("mlflow.trace.session"),
        metadata.get("mlflow.trace.user"),
        str(trace.info.client_request_id).startswith("n-"),
        trace.info.tags.get("mlflow.traceName"),
        root.inputs,
        root.outputs,
    ) == ("s-1", "jane", True, "POST", {"question": 1}, "answered")


def test_the_bridge_leaves_no_log_record_behind(tmp_path: Path) -> None:
    """An MLflow that fits needs no line."""
    program = "from mlflow_middleware import mlflow_bridge as b; print(repr(b.found.summary), b.found.level.name)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )

    assert (done.stdout, done.stderr) == ("'' EVERYTHING\n", "")


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_TRACES_SAMPLER=always_off",
        "OTEL_SDK_DISABLED=true",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:1",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1",
        "MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false",
        "MLFLOW_TRACE_SAMPLING_RATIO=0",
        "MLFLOW_TRACE_TIMEOUT_SECONDS=5",
        "MLFLOW_TRACKING_URI=databricks",
    ],
)
def test_environment_variables_are_no_misfit(variable: str, tmp_path: Path) -> None:
    """An operator's variables for MLflow and OpenTelemetry do not affect whether MLflow fits."""
    program = "from mlflow_middleware import mlflow_bridge as b; print(b.found.level.name, b.found.why)"
    name, _, value = variable.partition("=")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(**{name: value}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )

    assert (done.stdout, done.stderr) == ("EVERYTHING \n", "")
