"""Traces reach a Databricks workspace, from an app that is configured by environment variables only."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.databricks_workspace import UPLOAD, Workspace, workspace
from tests.servers import PATIENT, ROOT, Process, clean_environment, command_for, eventually, free_port, serving
from tests.system.test_delivery import burst

pytestmark = pytest.mark.once

EXPERIMENT = "/Shared/production-genai-app"
TOKEN = "dapi-of-the-tests"
CONFIG_FILE = "DATABRICKS_CONFIG_FILE"
"""Points the Databricks client away from the developer's own profiles."""


@pytest.fixture
def databricks() -> Iterator[Workspace]:
    """A stand-in workspace."""
    with workspace(TOKEN) as stand_in:
        yield stand_in


class App:
    """The ASGI test app in its process."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url

    def chat(self, **headers: str) -> str:
        """Send a request with a child span; return its request id."""
        request_id = uuid.uuid4().hex
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = requests.get(f"{self.url}/sync/chats/c-1", headers={"X-Request-ID": request_id, **named}, timeout=60)
        assert answer.json()["request_id"] == request_id
        return request_id

    def lines_with(self, sentence: str) -> int:
        """Count the lines of its output that contain a sentence."""
        return sum(sentence in line for line in self.process.output().splitlines())


Serve = Callable[..., App]


@pytest.fixture
def serve(databricks: Workspace, tmp_path: Path) -> Iterator[Serve]:
    """Runs the test app with the usual variables; keywords are further variables, None removes one."""
    with ExitStack() as stack:

        def run(**changes: str | None) -> App:
            variables = {
                "MLFLOW_TRACKING_URI": "databricks",
                "DATABRICKS_HOST": databricks.url,
                "DATABRICKS_TOKEN": TOKEN,
                CONFIG_FILE: str(tmp_path / "no-profiles"),
                "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
                "APP_OPTIONS": json.dumps({"tags": {"team": "search"}}),
                "ENVIRONMENT": "production",
                **changes,
            }
            environment = clean_environment(**{name: value for name, value in variables.items() if value is not None})
            port = free_port()
            log = tmp_path / f"{port}.log"
            return App(*stack.enter_context(serving(command_for("asgi", port), environment, log, port)))

        yield run


def otel_id(encoded: str) -> str:
    """Return an id as a trace file has it, in hexadecimal digits."""
    return base64.b64decode(encoded).hex()


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    """Return a span's attributes, decoded from JSON."""
    return {name: decoded(value) for name, value in span["attributes"].items()}


def test_all_of_a_trace_reaches_the_workspace(databricks: Workspace, serve: Serve) -> None:
    """The experiment is created; client request id, tags, metadata and every span arrive, and nothing goes by OTLP."""
    app = serve()

    request_id = app.chat(X_Session_ID="s-1", X_User_ID="jane")

    info = eventually(lambda: databricks.of_request(request_id), "the trace in the workspace")
    assert info["trace_location"]["mlflow_experiment"] == {"experiment_id": databricks.experiments[EXPERIMENT]}
    assert (info["state"], info["trace_id"][:3]) == ("OK", "tr-")
    assert (
        info["tags"].items()
        >= {
            "mlflow.traceName": "GET /sync/chats/{chat_id}",
            "mlflow.trace.session": "s-1",
            "mlflow.trace.user": "jane",
            "client_request_id": request_id,
            "environment": "production",
            "team": "search",
            "http.status_code": "200",
        }.items()
    )
    assert (
        info["trace_metadata"].items()
        >= {
            "mlflow.trace.session": "s-1",
            "mlflow.trace.user": "jane",
        }.items()
    )
    assert float(info["execution_duration"].removesuffix("s")) > 0
    root, child = sorted(databricks.spans[info["trace_id"]], key=lambda span: bool(span["parent_span_id"]))
    assert (root["name"], child["name"]) == ("GET /sync/chats/{chat_id}", "answer")
    assert child["parent_span_id"] == root["span_id"]
    assert {otel_id(root["trace_id"]), otel_id(child["trace_id"])} == {info["trace_id"].removeprefix("tr-")}
    assert root["status"]["code"] == "STATUS_CODE_OK"
    assert (
        attributes(root).items()
        >= {
            "mlflow.spanType": "CHAIN",
            "mlflow.traceRequestId": info["trace_id"],
            "http.route": "/sync/chats/{chat_id}",
            "http.response.status_code": 200,
            "session.id": "s-1",
            "user.id": "jane",
        }.items()
    )
    assert not any("/v1/traces" in request for request in databricks.requests)


def test_tokens_have_a_cost(databricks: Workspace, serve: Serve, tmp_path: Path) -> None:
    """Root and trace have it once MLflow's prices are loaded, since a workspace computes none."""
    prices = {"input_per_million_tokens": 3, "output_per_million_tokens": 15}
    catalog = {"schema_version": "1.0", "models": {"databricks-claude-sonnet-4-5": {"pricing": prices}}}
    (tmp_path / "databricks.json").write_text(json.dumps(catalog))
    app = serve(MLFLOW_MODEL_CATALOG_URI=tmp_path.as_uri())
    answer = {
        "model": "databricks-claude-sonnet-4-5",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }

    def with_cost() -> dict[str, Any] | None:
        request_id = uuid.uuid4().hex
        requests.post(f"{app.url}/echo", json=answer, headers={"X-Request-ID": request_id}, timeout=60)
        info = eventually(lambda: databricks.of_request(request_id), "the trace in the workspace")
        return info if "mlflow.trace.cost" in info["trace_metadata"] else None

    info = eventually(with_cost, "a trace with its cost")
    cost = {"input_cost": 0.003, "output_cost": 0.0015, "total_cost": 0.0045}
    assert json.loads(info["trace_metadata"]["mlflow.trace.cost"]) == pytest.approx(cost)
    (root,) = databricks.spans[info["trace_id"]]
    assert attributes(root)["mlflow.llm.cost"] == pytest.approx(cost)


def test_an_existing_experiment_is_used(databricks: Workspace, serve: Serve) -> None:
    """An experiment that exists is found, by name or by id, and none is created."""
    databricks.experiments[EXPERIMENT] = "1234"
    by_name, by_id = serve(), serve(MLFLOW_EXPERIMENT_NAME=None, MLFLOW_EXPERIMENT_ID="1234")

    ids = [by_name.chat(), by_id.chat()]

    infos = [eventually(lambda id=id: databricks.of_request(id), "the trace") for id in ids]  # type: ignore[misc]
    assert {info["trace_location"]["mlflow_experiment"]["experiment_id"] for info in infos} == {"1234"}
    assert "POST /api/2.0/mlflow/experiments/create" not in databricks.requests


def test_sigterm_delivers_pending_traces(databricks: Workspace, serve: Serve) -> None:
    """A server that gets SIGTERM right after its requests has every trace and all spans in the workspace."""
    app = serve(**PATIENT)
    ids = [app.chat() for _ in range(50)]

    app.process.stop(signal.SIGTERM, timeout=150)

    assert [bool(databricks.of_request(request_id)) for request_id in ids] == [True] * 50
    assert [len(spans) for spans in databricks.spans.values()] == [2] * 50


def test_a_wrong_token_is_reported_once(databricks: Workspace, serve: Serve) -> None:
    """One line in the log names the variable to check, and the app goes on answering."""
    app = serve(DATABRICKS_TOKEN="dapi-of-somebody-else")

    app.chat()

    sentence = "MLFLOW_TRACKING_URI=databricks refused the credentials (401); check "
    eventually(lambda: app.lines_with(sentence), "the sentence")
    app.chat()
    app.process.stop()
    assert app.lines_with(sentence) == 1
    assert "DATABRICKS_TOKEN" in app.process.output()
    assert "dapi-of-somebody-else" not in app.process.output()
    assert app.lines_with("Traceback") == 0
    assert not databricks.infos


def test_a_missing_experiment_is_reported_once(databricks: Workspace, serve: Serve) -> None:
    """Without an experiment, the log names at start-up the variable to set, and an example value."""
    app = serve(MLFLOW_EXPERIMENT_NAME=None)

    sentence = "MLFLOW_EXPERIMENT_NAME is not set, and a Databricks workspace has no default experiment; set it to"
    eventually(lambda: app.lines_with(sentence), "the sentence")
    app.chat()
    app.process.stop()
    assert app.lines_with(sentence) == 1
    assert not databricks.infos


def test_an_experiment_that_the_workspace_refuses_is_reported(databricks: Workspace, serve: Serve) -> None:
    """The workspace's own message about a bad experiment name is in the log."""
    app = serve(MLFLOW_EXPERIMENT_NAME="no-path")

    eventually(lambda: app.lines_with("invalid experiment name 'no-path'"), "the sentence")
    assert app.lines_with("MLFLOW_EXPERIMENT_NAME='no-path'") == 1


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (500, "INTERNAL_ERROR", {}),
        (503, "TEMPORARILY_UNAVAILABLE", {}),
        (429, "REQUEST_LIMIT_EXCEEDED", {"Retry-After": "1"}),
        (401, "UNAUTHENTICATED", {}),
        (403, "PERMISSION_DENIED", {}),
    ],
)
@pytest.mark.parametrize(
    "path",
    ["/experiments/", "/api/3.0/mlflow/traces", "credentials-for-data-upload", UPLOAD],
    ids=["experiments", "traces", "credentials", "upload"],
)
def test_nothing_is_lost_while_the_workspace_fails(
    databricks: Workspace, serve: Serve, path: str, status: int, code: str, headers: dict[str, str]
) -> None:
    """Whichever request fails for a while, and in whichever way, every trace is complete in the end."""
    trouble = databricks.fail(status, code, path, times=3, headers=headers)
    app = serve()

    ids = [app.chat() for _ in range(5)]

    for request_id in ids:
        eventually(lambda id=request_id: databricks.of_request(id), "the trace in the workspace")  # type: ignore[misc]
    assert trouble.met == 3
    assert [len(spans) for spans in databricks.spans.values()] == [2] * 5


@pytest.mark.heavy
@pytest.mark.parametrize("path", ["/api/3.0/mlflow/traces", UPLOAD], ids=["traces", "upload"])
def test_an_exit_during_an_outage_keeps_traces_in_the_spool(
    databricks: Workspace, serve: Serve, tmp_path: Path, path: str
) -> None:
    """An app that ends during an outage leaves its traces in the spool, and the next one delivers them."""
    trouble = databricks.fail(503, "TEMPORARILY_UNAVAILABLE", path)
    spool = str(tmp_path / "spool")
    first = serve(MLFLOW_MIDDLEWARE_SPOOL_DIR=spool, MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="1")
    ids = [first.chat() for _ in range(5)]
    eventually(lambda: trouble.met, "a failure")
    first.process.stop()
    trouble.times = 0

    serve(MLFLOW_MIDDLEWARE_SPOOL_DIR=spool)

    for request_id in ids:
        eventually(lambda id=request_id: databricks.of_request(id), "the trace in the workspace")  # type: ignore[misc]
    assert [len(spans) for spans in databricks.spans.values()] == [2] * 5


def test_a_script_without_a_server_delivers_at_its_end(databricks: Workspace, tmp_path: Path) -> None:
    """A plain script's traces are in the workspace once it has ended, also under a named profile."""
    profiles = tmp_path / "profiles"
    profiles.write_text(f"[team]\nhost = {databricks.url}\ntoken = {TOKEN}\n")
    environment = clean_environment(
        MLFLOW_TRACKING_URI="databricks://team",
        MLFLOW_EXPERIMENT_NAME=EXPERIMENT,
        MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="60",
        **{CONFIG_FILE: str(profiles)},
    )
    command = [sys.executable, "-m", "tests.apps.traced_script", "3"]

    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=60)

    assert sorted(info["tags"]["mlflow.traceName"] for info in databricks.infos.values()) == ["0", "1", "2"]
    assert [len(spans) for spans in databricks.spans.values()] == [2] * 3


def test_a_trace_that_is_too_large_for_the_storage_is_cut(databricks: Workspace, tmp_path: Path) -> None:
    """It is stored without its largest inputs, and marked."""
    databricks.fail(413, "REQUEST_TOO_LARGE", UPLOAD, times=1)
    environment = {
        "MLFLOW_TRACKING_URI": "databricks",
        "DATABRICKS_HOST": databricks.url,
        "DATABRICKS_TOKEN": TOKEN,
        "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
    }
    with burst(tmp_path, 1, 0, LARGE="100000", **environment) as running:
        eventually(lambda: running.stats()["delivered"] == 1, "the trace in the workspace")

    (spans,) = databricks.spans.values()
    root, child = sorted(spans, key=lambda span: str(span["name"]))
    assert "cut: 1000" in root["attributes"]["mlflow.spanInputs"]
    assert "mlflow.spanInputs" in root["attributes"]["mlflow_middleware.cut"]
    assert "a" * 10_000 in child["attributes"]["mlflow.spanOutputs"]


def uploaded(databricks: Workspace, experiment: str) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return the traces of an experiment by name: info and spans, without ids and times."""
    experiment_id = databricks.experiments[experiment]
    traces = {}
    for trace_id, info in databricks.infos.items():
        if info["trace_location"]["mlflow_experiment"]["experiment_id"] != experiment_id:
            continue
        text = json.dumps([info, databricks.spans[trace_id]], sort_keys=True)
        for span in databricks.spans[trace_id]:
            text = text.replace(span["span_id"], f"<span {span['name']}>").replace(span["trace_id"], "<trace>")
        for pattern, name in PATTERNS.items():
            text = re.sub(pattern, name, text)
        plain_info, spans = json.loads(text.replace(experiment, "<experiment>"))
        for span in spans:
            span["attributes"] = {name: decoded(value) for name, value in span["attributes"].items()}
        for key in ("mlflow.trace.sizeStats", "mlflow.trace.sizeBytes"):
            assert plain_info["trace_metadata"].pop(key)
        traces[info["tags"]["mlflow.traceName"]] = (plain_info, sorted(spans, key=lambda span: str(span["span_id"])))
    return traces


def decoded(attribute: object) -> object:
    """Return an attribute's value: JSON, unless set by OpenTelemetry's API, which MLflow's exporter leaves bare."""
    try:
        return json.loads(attribute) if isinstance(attribute, str) else attribute
    except ValueError:
        return attribute


PATTERNS = {
    r"\b[0-9a-f]{32}\b": "<id>",
    r"\b[0-9a-f]{16}\b": "<id>",
    r"\b39[0-9]{14}\b": "<experiment id>",
    r"mlflow-attachment://[0-9a-f-]+": "<attachment>",
    r'_nano": [0-9]+': '_nano": 0',
    r'"[0-9-]+T[0-9:.]+Z"': '"<time>"',
    r'"[0-9.]+s"': '"<duration>"',
}
"""Parts of ids and times that differ between two runs."""


def test_a_workspace_gets_the_same_as_from_mlflows_exporter(databricks: Workspace, tmp_path: Path) -> None:
    """Info and spans of every kind of trace equal, field by field, those that MLflow's own exporter sends."""
    for exporter in ("ours", "mlflow"):
        environment = clean_environment(
            MLFLOW_TRACKING_URI="databricks",
            DATABRICKS_HOST=databricks.url,
            DATABRICKS_TOKEN=TOKEN,
            **{CONFIG_FILE: str(tmp_path / "no-profiles")},
        )
        command = [sys.executable, "-m", "tests.apps.rich_traces", f"/Shared/{exporter}", exporter]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-4000:]
        if exporter == "ours":
            assert "stored without its attachments or prompts" in done.stderr
            assert "trace dropped" not in done.stderr

    ours, mlflows = uploaded(databricks, "/Shared/ours"), uploaded(databricks, "/Shared/mlflow")

    assert ours.keys() == mlflows.keys()
    for kind, (info, spans) in mlflows.items():
        assert ours[kind][0] == info, kind
        assert ours[kind][1] == spans, kind


def test_stored_traces_are_found_in_a_workspace(databricks: Workspace, serve: Serve, tmp_path: Path) -> None:
    """By the same request, with the same credentials; even if it ignores the filter, no other trace is returned."""
    app = serve()
    wanted = [app.chat(X_User_ID="jane"), app.chat(X_User_ID="sam"), app.chat(X_User_ID="jane")][::2]
    eventually(lambda: len(databricks.spans) == 3, "the traces in the workspace")

    done = subprocess.run(
        [sys.executable, "-m", "mlflow_middleware.cli", "traces", "--user", "jane", "--json"],
        env=clean_environment(
            MLFLOW_TRACKING_URI="databricks",
            DATABRICKS_HOST=databricks.url,
            DATABRICKS_TOKEN=TOKEN,
            MLFLOW_EXPERIMENT_NAME=EXPERIMENT,
            **{CONFIG_FILE: str(tmp_path / "no-profiles")},
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert {row["request_id"] for row in json.loads(done.stdout)} == set(wanted)
