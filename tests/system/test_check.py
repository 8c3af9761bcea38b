"""`mlflow-middleware check` with real faults: each is reported in a sentence with its remedy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from mlflow_middleware.commands import check
from tests.certificates import self_signed
from tests.conftest import Traces
from tests.databricks_workspace import workspace
from tests.faults import faulty
from tests.servers import ROOT, MLflowServer, Process, clean_environment, eventually, free_port, spooled
from tests.system.test_connection import create_experiment, delete_experiment

pytestmark = pytest.mark.once

AS_NOBODY = """
import os
from mlflow_middleware import delivery, mlflow_bridge, settings
from mlflow_middleware.commands import check
from mlflow_middleware.delivery import spool
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
raise SystemExit(check.run(as_json=True))
"""
"""The check without root's access to every directory; only root may be able to read its imports."""

TIMED = """
import atexit
import sys
import time
from mlflow_middleware import cli, mlflow_bridge, settings
from mlflow_middleware.delivery import encoded, experiment, sinks, spool
began = time.monotonic()
atexit.register(lambda: print(time.monotonic() - began, file=sys.stderr))
sys.exit(cli.main(["check", "--json"]))
"""
"""The check, with the seconds until it had ended; the time to start it on a busy machine does not count."""

PATIENT = ("-m", "tests.apps.patient_check")
CHECK = ("mlflow_middleware.cli", "check", "--json")


@dataclass
class Checked:
    """The result of one run."""

    code: int
    steps: dict[str, dict[str, Any]]
    printed: str
    errors: str

    def message(self, step: str) -> str:
        return str(self.steps[step]["message"])

    def having(self, outcome: str) -> list[str]:
        """Return the steps with this outcome."""
        return [name for name, step in self.steps.items() if step["outcome"] == outcome]

    def failed_at(self, step: str, *words: str) -> bool:
        """Return whether only this step has failed, with these words, and the exit code matches."""
        found = self.having("failed") == [step] and all(word in self.message(step) for word in words)
        assert found, self.printed
        return self.code == 1


def run_check(*command: str, **variables: str) -> Checked:
    """Run the check in a process with only the given variables."""
    direct = {name: value for name, value in clean_environment().items() if not name.lower().endswith("_proxy")}
    ended = subprocess.run(
        [sys.executable, *(command or (*PATIENT, *CHECK))],
        env={**direct, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["ok"] == (ended.returncode == 0)
    return Checked(ended.returncode, {step["step"]: step for step in answer["steps"]}, ended.stdout, ended.stderr)


@pytest.fixture
def traces(server: MLflowServer) -> Traces:
    """An experiment that does not exist yet."""
    return Traces(server.uri, f"check-{uuid.uuid4().hex}")


def connected(traces: Traces, uri: str | None = None) -> dict[str, str]:
    """Return the variables of a process that reports there, or to a stand-in in front of it."""
    return {"MLFLOW_TRACKING_URI": uri or traces.uri, "MLFLOW_EXPERIMENT_NAME": traces.experiment}


# --- nothing is wrong ---


def test_a_trace_is_written_read_back_and_deleted(traces: Traces, tmp_path: Path) -> None:
    """Every step passes except for those that do not apply; afterwards the experiment exists, and is empty."""
    checked = run_check(**connected(traces), MLFLOW_MIDDLEWARE_SPOOL_DIR=str(tmp_path / "new" / "spool"))

    assert (checked.code, checked.having("failed"), checked.having("skipped")) == (0, [], ["TLS", "collector"])
    assert list(checked.steps) == [name for name, _, _ in check.STEPS]
    assert traces.experiment_id is not None
    assert traces.search() == []
    assert list(tmp_path.iterdir()) == []


def test_it_prints_a_line_for_each_step(traces: Traces) -> None:
    """The lines are for people; a step that depends on a failed one is marked as such."""
    environment = clean_environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    command = [sys.executable, *PATIENT, "mlflow_middleware.cli", "check"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)

    lines = ended.stdout.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == [*["passed"] * 3, "failed", *["skipped"] * 10]
    assert "skipped write           not tried: reachability failed" in lines
    assert ended.returncode == 1


def test_a_databricks_workspace(tmp_path: Path) -> None:
    """The probe is written to the stand-in, read back and deleted; and a wrong token is reported."""
    with workspace("right") as databricks:
        variables = {
            "MLFLOW_TRACKING_URI": "databricks",
            "DATABRICKS_HOST": databricks.url,
            "DATABRICKS_CONFIG_FILE": str(tmp_path / "no-profiles"),
            "MLFLOW_EXPERIMENT_NAME": "/Shared/check",
        }
        good = run_check(**variables, DATABRICKS_TOKEN="right")
        bad = run_check(**variables, DATABRICKS_TOKEN="wrong")

    assert (good.code, good.having("failed")) == (0, []), good.printed
    assert len(databricks.spans) == 1
    assert databricks.infos == {}
    assert bad.failed_at("credentials", "refused the credentials (401)", "DATABRICKS_TOKEN")


# --- this process ---


@pytest.mark.parametrize("change", ["shape", "names"])
def test_an_mlflow_client_of_unknown_shape(server: MLflowServer, change: str) -> None:
    """It builds its processors differently, or has lost a name: the line has the version and the remedy."""
    checked = run_check("-m", "tests.apps.unknown_client", change, MLFLOW_TRACKING_URI=server.uri)

    assert checked.failed_at(
        "MLflow client", mlflow.__version__, "3.11 to 3.18", "pip install 'mlflow-tracing>=3.11,<3.19'"
    )


def test_a_wrong_option(traces: Traces) -> None:
    """It is named; the other steps run all the same."""
    checked = run_check(**connected(traces), MLFLOW_MIDDLEWARE_SESSION_HEADER="X-Chat-ID")

    assert checked.failed_at("settings", "unknown option 'session_header' (did you mean 'session_id_header'?)")
    assert checked.steps["read back"]["outcome"] == "passed"


def test_a_database_with_the_slim_package() -> None:
    """Only the full package can use it."""
    if not mlflow.version.IS_TRACING_SDK_ONLY:
        pytest.skip("the full mlflow package is installed in this environment")
    checked = run_check(MLFLOW_TRACKING_URI="sqlite:///x.db")

    assert checked.failed_at("tracking URI", "sqlite:///x.db needs the full mlflow package", "install mlflow, or set")


def test_an_address_that_is_not_set() -> None:
    """The variable and an example value are named."""
    assert run_check().failed_at("tracking URI", "MLFLOW_TRACKING_URI is not set", "http://localhost:5000")


@pytest.mark.parametrize("variable", [{"MLFLOW_TRACE_SAMPLING_RATIO": "0"}, {"OTEL_SDK_DISABLED": "true"}])
def test_disabled_tracing(traces: Traces, variable: dict[str, str]) -> None:
    """It was disabled by a variable, which is easily forgotten."""
    assert run_check(**connected(traces), **variable).failed_at("write", "MLflow opens no trace", *variable)


def test_a_sampling_ratio(traces: Traces) -> None:
    """MLflow samples one of ten traces: the check makes as many as it needs, and leaves none."""
    for _ in range(3):
        checked = run_check(**connected(traces), MLFLOW_TRACE_SAMPLING_RATIO="0.1")
        assert (checked.code, checked.steps["read back"]["outcome"]) == (0, "passed"), checked.printed
    assert traces.search() == []


def test_a_tiny_sampling_ratio(traces: Traces) -> None:
    """No trace could be written, which is no failure."""
    checked = run_check(**connected(traces), MLFLOW_TRACE_SAMPLING_RATIO="1e-12")

    assert (checked.code, checked.having("failed")) == (0, [])
    assert checked.message("write") == "MLFLOW_TRACE_SAMPLING_RATIO=1e-12: none of 500 traces was sampled"
    assert checked.message("read back") == checked.message("latency") == "no trace was written"


def test_a_disabled_middleware(tmp_path: Path) -> None:
    """It needs no server and no spool."""
    off = {"MLFLOW_MIDDLEWARE_ENABLED": "false", "MLFLOW_MIDDLEWARE_SPOOL_DIR": str(tmp_path / "spool")}
    checked = run_check(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}", **off)

    assert (checked.code, checked.having("passed")) == (0, ["MLflow client", "settings"])
    assert checked.message("reachability") == "enabled is false"


# --- the way to the server ---


def test_an_unreachable_server() -> None:
    """The line has the address without its password, and what localhost means in a container."""
    checked = run_check(MLFLOW_TRACKING_URI=f"http://jane:hunter2@127.0.0.1:{free_port()}")

    assert checked.failed_at("reachability", "Connection refused", "start the server", "inside a container")
    assert "hunter2" not in checked.printed


def test_a_server_that_accepts_and_never_answers(server: MLflowServer) -> None:
    """It does not delay the check for long."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = "hang"
        assert run_check(MLFLOW_TRACKING_URI=stand_in.uri).failed_at("reachability", "cannot be reached", "timed out")


def test_the_check_ends_in_time_if_a_step_hangs(server: MLflowServer) -> None:
    """A server answers only until a request needs its database: that step fails, the others are skipped."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = "silent"
        checked = run_check("-c", TIMED, MLFLOW_TRACKING_URI=stand_in.uri)

    assert checked.failed_at("credentials", "not finished within 8 s", "database")
    assert checked.message("write") == "no time was left"
    assert float(checked.errors) < 10


def test_a_failing_server(server: MLflowServer) -> None:
    """It is running, and answers 500."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = "500"
        assert run_check(MLFLOW_TRACKING_URI=stand_in.uri).failed_at("reachability", "answered 500", "check its log")


def test_a_proxy_in_the_way(traces: Traces) -> None:
    """The variable is named, and that the server can be reached without the proxy."""
    proxy = f"http://jane:hunter2@127.0.0.1:{free_port()}"
    checked = run_check(**connected(traces), HTTP_PROXY=proxy)

    assert checked.failed_at("reachability", "HTTP_PROXY=http://127.0.0.1:", "add 127.0.0.1 to NO_PROXY")
    assert "can be reached without it" in checked.message("reachability")
    assert "hunter2" not in checked.printed


def test_an_untrusted_certificate(traces: Traces, tmp_path: Path) -> None:
    """The line names the variable that helps; and it does help."""
    certificate = self_signed(tmp_path)
    with faulty(traces.uri, certificate=certificate) as stand_in:
        variables = {**connected(traces, stand_in.uri), "REQUESTS_CA_BUNDLE": ""}
        untrusted = run_check(**variables)
        trusted = run_check(**{**variables, "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate)})

    assert untrusted.failed_at("TLS", "the certificate is not trusted", "MLFLOW_TRACKING_SERVER_CERT_PATH")
    assert (trusted.code, trusted.message("TLS")) == (0, "the certificate is trusted")


@pytest.mark.parametrize(
    ("host", "days", "sentence"),
    [("127.0.0.1", -1, "is not valid now"), ("127.0.0.2", 1, "is for another host name")],
    ids=["expired", "another-name"],
)
def test_an_invalid_certificate(traces: Traces, tmp_path: Path, host: str, days: int, sentence: str) -> None:
    """It is trusted, but expired, or another server's."""
    certificate = self_signed(tmp_path, host, days)
    with faulty(traces.uri, certificate=certificate) as stand_in:
        variables = {**connected(traces, stand_in.uri), "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate)}
        assert run_check(**variables).failed_at("TLS", sentence)


def test_https_for_a_server_that_speaks_http(server: MLflowServer) -> None:
    """The line has the correct address."""
    checked = run_check(MLFLOW_TRACKING_URI=server.uri.replace("http:", "https:"))

    assert checked.failed_at("TLS", "does not use TLS", "write http://")


@pytest.mark.parametrize(("ahead", "word"), [(7200.0, "behind"), (-7200.0, "ahead of")])
def test_a_wrong_clock(traces: Traces, ahead: float, word: str) -> None:
    """It is two hours ahead or behind; traces are written all the same."""
    with faulty(traces.uri) as stand_in:
        stand_in.ahead = ahead
        checked = run_check(**connected(traces, stand_in.uri))

    assert checked.failed_at("clock", f"s {word} that of MLFLOW_TRACKING_URI={stand_in.uri}", "NTP")
    assert checked.steps["read back"]["outcome"] == "passed"


# --- the server ---


def test_a_server_that_is_too_old(traces: Traces) -> None:
    """A stand-in reports the version of MLflow 3.3.2."""
    with faulty(traces.uri) as stand_in:
        stand_in.version = "3.3.2"
        checked = run_check(**connected(traces, stand_in.uri))

    assert checked.failed_at("server version", "MLflow 3.3.2", "upgrade the server to 3.13 or newer")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("401", ["refused the credentials (401)"]),
        ("403", ["denied this (403)", "the user has no permission for it", "EDIT", "MANAGE"]),
    ],
)
def test_refused_credentials(server: MLflowServer, status: str, words: list[str]) -> None:
    """The line names the variables without their values, or the permission that this user lacks."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = status
        stand_in.manner = "close"
        checked = run_check(MLFLOW_TRACKING_URI=stand_in.uri, MLFLOW_TRACKING_TOKEN="hunter2")

    assert checked.failed_at("credentials", *words, "MLFLOW_TRACKING_TOKEN")
    assert "hunter2" not in checked.printed
    assert "proxy" not in checked.message("credentials")


@pytest.mark.parametrize("host", ["mlflow:5000", "tracking.example"])
def test_a_refused_host_name(server: MLflowServer, host: str) -> None:
    """The user's permission is not the cause: the server's option is named."""
    with faulty(server.uri) as stand_in:
        stand_in.host = host
        checked = run_check(MLFLOW_TRACKING_URI=stand_in.uri)

    assert checked.failed_at("credentials", "(403, invalid Host header)", "--allowed-hosts")
    assert "EDIT" not in checked.printed


def test_a_proxy_that_answers_403(server: MLflowServer) -> None:
    """The proxy may be the cause, and the server can be reached without it."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = "403"
        stand_in.manner = "close"
        checked = run_check(MLFLOW_TRACKING_URI=server.uri, HTTP_PROXY=stand_in.uri)

    assert checked.failed_at("credentials", "denied this (403)", "or a proxy denies it", "add 127.0.0.1 to NO_PROXY")


def test_a_login_page(server: MLflowServer) -> None:
    """A gateway answers everything with 200."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = "login"
        stand_in.manner = "close"
        checked = run_check(MLFLOW_TRACKING_URI=stand_in.uri)

    assert checked.having("failed") == ["server version", "credentials"]
    assert "is there a login page in front of it?" in checked.message("server version")
    assert "does not answer like an MLflow server" in checked.message("credentials")


def test_a_wrong_experiment_id(server: MLflowServer) -> None:
    """The line names the value and the remedy."""
    checked = run_check(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_ID="987654321")

    assert checked.failed_at("experiment", "MLFLOW_EXPERIMENT_ID='987654321'", "set MLFLOW_EXPERIMENT_NAME instead")


def test_the_experiments_of_the_options(server: MLflowServer, traces: Traces) -> None:
    """Those of the app and of its routes are found or created; an unusable one is named, with its remedy."""
    own, routes = f"own-{uuid.uuid4().hex}", json.dumps({"/search": {"experiment": "987654321"}})
    good = run_check(**connected(traces), MLFLOW_MIDDLEWARE_EXPERIMENT=own)
    bad = run_check(**connected(traces), MLFLOW_MIDDLEWARE_ROUTES=routes)

    assert good.code == 0
    assert f"'{own}', id {Traces(server.uri, own).experiment_id}" in good.message("experiment")
    assert bad.failed_at("experiment", "987654321", f"its traces go to the experiment '{traces.experiment}'")


def test_a_deleted_experiment(server: MLflowServer, traces: Traces) -> None:
    """It can be restored."""
    delete_experiment(server, create_experiment(server, traces.experiment))

    assert run_check(**connected(traces)).failed_at("experiment", "this experiment is deleted; restore it")


def test_a_server_that_does_not_store_spans(traces: Traces) -> None:
    """Its answer is reported, and nothing of the probe is left."""
    with faulty(traces.uri) as stand_in:
        stand_in.mode = "spans"
        stand_in.manner = "close"
        checked = run_check(**connected(traces, stand_in.uri))

    assert checked.failed_at("write", "a trace could not be stored", "answered 500: told to fail")
    assert traces.search(spans=False) == []


def test_a_server_that_hangs_over_spans(traces: Traces) -> None:
    """When the time is over, the probe is deleted and named."""
    with faulty(traces.uri) as stand_in:
        stand_in.mode = "stuck"
        stand_in.manner = "close"
        checked = run_check("-c", TIMED, **connected(traces, stand_in.uri))
        assert checked.failed_at("write", "not finished within 8 s", "the probe tr-", "has been deleted")
        assert traces.search(spans=False) == []

    assert float(checked.errors) < 10


def test_a_probe_that_cannot_be_deleted(traces: Traces) -> None:
    """It is named, with the reason."""
    with faulty(traces.uri) as stand_in:
        stand_in.mode = "undeletable"
        stand_in.manner = "close"
        checked = run_check(**connected(traces, stand_in.uri))

    (left,) = traces.search(spans=False)
    assert checked.failed_at("write", "a trace could not be stored", f"delete {left.info.trace_id} by hand")


def test_a_server_that_does_not_return_a_trace(traces: Traces) -> None:
    """It has accepted the trace; the probe is deleted all the same."""
    with faulty(traces.uri) as stand_in:
        stand_in.mode = "forgotten"
        stand_in.manner = "close"
        checked = run_check(**connected(traces, stand_in.uri))

    assert checked.failed_at("read back", "does not return it", "replicas")
    assert traces.search(spans=False) == []


# --- the spool ---


@pytest.mark.parametrize("place", ["file", "file/spool"])
def test_a_spool_that_is_not_writable(traces: Traces, tmp_path: Path, place: str) -> None:
    """A file is in place of the directory, or of its parent."""
    (tmp_path / "file").write_text("in the way")
    checked = run_check(**connected(traces), MLFLOW_MIDDLEWARE_SPOOL_DIR=str(tmp_path / place))

    assert checked.failed_at("spool", f"the spool {tmp_path / place}", "MLFLOW_MIDDLEWARE_SPOOL_DIR")


def test_a_spool_in_a_forbidden_directory(tmp_path: Path) -> None:
    """This user cannot even see whether the spool exists: the line has the remedy."""
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        variables = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(locked / "spool")}
        checked = run_check("-c", AS_NOBODY, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}", **variables)
    finally:
        locked.chmod(0o700)

    assert checked.steps["spool"]["outcome"] == "failed"
    assert f"the spool {locked / 'spool'} cannot be" in checked.message("spool")
    assert "make it a directory that this user can write to" in checked.message("spool")


def test_a_full_spool(traces: Traces, tmp_path: Path) -> None:
    """It is no failure, as the app must start to send it; but it is reported, with the options and the command."""
    name = f"{time.time_ns():020d}-1-000000.experiment-0.otlp"
    (tmp_path / name).write_bytes(b"x" * 65536)
    options = {"MLFLOW_MIDDLEWARE_SPOOL_DIR": str(tmp_path), "MLFLOW_MIDDLEWARE_MAX_SPOOL_BYTES": "65536"}
    checked = run_check(**connected(traces), **options)

    assert (checked.code, checked.steps["spool"]["outcome"]) == (0, "passed")
    for word in (
        "is full (max_spool_bytes=65536)",
        "MAX_SPOOL_BYTES",
        "1 file",
        f"mlflow-middleware replay {tmp_path}",
    ):
        assert word in checked.message("spool")


def test_traces_left_in_a_spool(traces: Traces, tmp_path: Path) -> None:
    """A process that ended without its server has left them: that is no failure now, but the command is named."""
    variables = {
        "MLFLOW_MIDDLEWARE_SPOOL_DIR": str(tmp_path),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-m", "tests.apps.traced_script", "3"]
    subprocess.run(command, env=clean_environment(**variables), cwd=ROOT, capture_output=True, timeout=180, check=True)
    assert spooled(tmp_path) == 3

    checked = run_check(**{**variables, **connected(traces)})

    assert (checked.code, spooled(tmp_path)) == (0, 3)
    assert "of traces still wait" in checked.message("spool")
    assert f"mlflow-middleware replay {tmp_path}" in checked.message("spool")


# --- the frameworks' own commands ---


def test_manage_py_check_deploy(traces: Traces, tmp_path: Path) -> None:
    """Each failed step is a message with an id of its own; without ``--deploy`` no server is called."""
    pytest.importorskip("django", reason="django is not installed in this environment")
    (tmp_path / "file").write_text("in the way")

    def django_check(*arguments: str, **variables: str) -> tuple[int, str]:
        command = [sys.executable, *PATIENT, "django", "check", "--settings", "tests.apps.django_settings", *arguments]
        environment = clean_environment(**variables)
        ended = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
        )
        return ended.returncode, ended.stdout + ended.stderr

    options = {"APP_OPTIONS": json.dumps({"SPOOL_DIR": str(tmp_path / "file")})}
    away = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}", **options}

    assert django_check(**away)[0] == 0
    code, printed = django_check("--deploy", **away)
    assert code == 1
    assert "?: (mlflow_middleware.E004) reachability: MLFLOW_TRACKING_URI=http://127.0.0.1:" in printed
    assert "?: (mlflow_middleware.E011) spool: the spool " in printed
    code, printed = django_check("--deploy", **connected(traces))
    assert (code, "mlflow_middleware." in printed) == (0, False)


def test_flask_mlflow_check(traces: Traces, tmp_path: Path) -> None:
    """It uses the app's own options."""
    pytest.importorskip("flask", reason="flask is not installed in this environment")
    (tmp_path / "file").write_text("in the way")
    command = (*PATIENT, "flask", "--app", "tests.apps.flask_app", "mlflow-check", "--json")
    options = json.dumps({"spool_dir": str(tmp_path / "file")})

    good = run_check(*command, **connected(traces))
    bad = run_check(*command, **connected(traces), APP_OPTIONS=options)

    assert (good.code, good.having("failed")) == (0, [])
    assert bad.failed_at("spool", f"the spool {tmp_path / 'file'} cannot be written")
    assert traces.search() == []


def test_a_hanging_readiness_command_can_be_ended(server: MLflowServer, tmp_path: Path) -> None:
    """The signal of an orchestrator ends it."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = "silent"
        environment = clean_environment(MLFLOW_TRACKING_URI=stand_in.uri)
        with Process([sys.executable, *PATIENT, *CHECK], environment, tmp_path / "log") as process:
            eventually(lambda: stand_in.failed, "a request that hangs")
            assert process.stop(signal.SIGTERM, timeout=30) == -signal.SIGTERM


@pytest.mark.parametrize("command", ["check", "traces"])
def test_a_reader_that_leaves_early_leaves_no_traceback(server: MLflowServer, command: str) -> None:
    """As in ``mlflow-middleware check | head -1``; whether it succeeded is unknown then."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "mlflow_middleware.cli", command],
        env=clean_environment(MLFLOW_TRACKING_URI=server.uri),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
