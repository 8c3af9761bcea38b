"""MLflow's own environment variables are enough to connect, and errors in them are reported."""

from __future__ import annotations

import base64
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import pytest
import requests

from tests.apps.launch import running
from tests.certificates import self_signed
from tests.conftest import RunningApp, Traces
from tests.servers import ROOT, MLflowServer, clean_environment, eventually, free_port

pytestmark = pytest.mark.xdist_group("connection")

Run = Callable[..., AbstractContextManager[RunningApp]]

WAITING = re.compile("traces (are waiting|cannot be sent yet)(, with retries at most 30 s apart)?: ")
"""The start of a line about the server, when it is logged with the first trace or before it."""


@pytest.fixture
def experiment() -> str:
    """The name of an experiment that does not exist on the server."""
    return f"connection-{uuid.uuid4().hex}"


@pytest.fixture
def run(server: MLflowServer, experiment: str, tmp_path: Path) -> Run:
    """Run the app with only the given variables; its traces are looked for in ``into``."""

    def start(into: str = experiment, **variables: str) -> AbstractContextManager[RunningApp]:
        variables["MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT"] = "0.1"  # most of them have no server to send to
        return running("asgi", "tests.apps.asgi_app:app", tmp_path, Traces(server.uri, into), **variables)

    return start


def create_experiment(server: MLflowServer, name: str) -> str:
    """Create an experiment; return its id."""
    answer = requests.post(f"{server.uri}/api/2.0/mlflow/experiments/create", json={"name": name}, timeout=30)
    return str(answer.json()["experiment_id"])


def delete_experiment(server: MLflowServer, experiment_id: str) -> None:
    """Move an experiment to MLflow's trash."""
    url = f"{server.uri}/api/2.0/mlflow/experiments/delete"
    requests.post(url, json={"experiment_id": experiment_id}, timeout=30).raise_for_status()


def log_has(app: RunningApp, *sentences: str) -> list[str]:
    """Wait until one line of the app's log has all of these sentences; return the lines about pending traces."""

    def lines() -> list[str]:
        return [line for line in app.process.output().splitlines() if WAITING.search(line)]

    eventually(
        lambda: any(all(sentence in line for sentence in sentences) for line in lines()),
        f"a line with {sentences} in: {app.process.output()}",
    )
    return lines()


def answers(app: RunningApp, request_id: str) -> bool:
    """Return whether the app serves a request as usual, ids included."""
    answer = app.get("/sync/chats/c-1", x_request_id=request_id)
    return (answer.status_code, answer.headers["X-MLflow-Trace-ID"]) == (200, answer.json()["trace_id"])


# --- where traces go ---


def test_a_missing_experiment_is_created(server: MLflowServer, run: Run, experiment: str, request_id: str) -> None:
    """MLFLOW_EXPERIMENT_NAME has the same meaning as in full MLflow."""
    with run(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=experiment) as app:
        assert answers(app, request_id)

        assert app.traces.one(request_id).info.experiment_id == app.traces.experiment_id


def test_an_experiment_is_found_by_its_id(server: MLflowServer, run: Run, experiment: str, request_id: str) -> None:
    """MLFLOW_EXPERIMENT_ID is enough; a trailing slash in the address does no harm."""
    experiment_id = create_experiment(server, experiment)

    with run(MLFLOW_TRACKING_URI=server.uri + "/", MLFLOW_EXPERIMENT_ID=experiment_id) as app:
        assert answers(app, request_id)

        assert app.traces.one(request_id).info.experiment_id == experiment_id


def test_without_an_experiment_the_default_one_is_used(server: MLflowServer, run: Run, request_id: str) -> None:
    """As in full MLflow, its id is 0."""
    with run("Default", MLFLOW_TRACKING_URI=server.uri) as app:
        assert answers(app, request_id)

        assert app.traces.one(request_id).info.experiment_id == "0"


# --- HTTPS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[MLflowServer]:
    """An MLflow server on HTTPS."""
    server = MLflowServer(tmp_path_factory.mktemp("tls-server"), certificate=certificate)
    server.start()
    yield server
    server.stop()


@pytest.mark.once
@pytest.mark.parametrize("trusted", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "insecure"])
def test_a_server_on_https_is_verified_as_mlflow_does(
    tls_server: MLflowServer, run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    """The same variables apply; there are several traces, so that they share a connection."""
    how = {"MLFLOW_TRACKING_INSECURE_TLS": "true"} if trusted == "insecure" else {trusted: str(certificate)}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))  # for this process, which reads them back

    variables = {"REQUESTS_CA_BUNDLE": "", "MLFLOW_TRACKING_URI": tls_server.uri, **how}
    with run(MLFLOW_EXPERIMENT_NAME=trusted, **variables) as app:
        app.traces = Traces(tls_server.uri, trusted)
        assert all(answers(app, f"{trusted}-{index}") for index in range(20))

        assert len(app.traces.wait(f"tags.client_request_id LIKE '{trusted}-%'", 20)) == 20


@pytest.mark.once
def test_an_untrusted_certificate_is_reported(tls_server: MLflowServer, run: Run, request_id: str) -> None:
    """The message has the reason."""
    with run(MLFLOW_TRACKING_URI=tls_server.uri, MLFLOW_EXPERIMENT_NAME="untrusted") as app:
        assert answers(app, request_id)
        log_has(app, f"MLFLOW_TRACKING_URI={tls_server.uri} cannot be reached", "CERTIFICATE_VERIFY_FAILED")


# --- an unreachable server ---


@pytest.mark.once
def test_traces_wait_for_a_server_that_starts_later(tmp_path: Path, run: Run, request_id: str) -> None:
    """The app serves from the start, reports once that it cannot reach the server, and stores all traces later."""
    late = MLflowServer(tmp_path, port=free_port())

    with run(MLFLOW_TRACKING_URI=late.uri, MLFLOW_EXPERIMENT_NAME="late") as app:
        app.traces = Traces(late.uri, "late")
        assert all(answers(app, f"{request_id}-{index}") for index in range(5))
        log_has(app, f"MLFLOW_TRACKING_URI={late.uri} cannot be reached", "Connection refused")
        try:
            late.start()
            stored = app.traces.wait(f"tags.client_request_id LIKE '{request_id}-%'", 5)
            complaints = log_has(app, "MLFLOW_TRACKING_URI")
        finally:
            late.stop()

    assert {trace.info.client_request_id for trace in stored} == {f"{request_id}-{i}" for i in range(5)}
    assert len(complaints) == 1
    assert f"traces are sent again: {late.uri}" in app.process.output()


def test_a_server_that_never_answers_delays_no_request(run: Run, request_id: str) -> None:
    """The first response arrives although the tracking server has answered nothing, and never will."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with run(MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME="never") as app:
            connection, _ = listener.accept()  # by now it asks for the experiment
            with connection:
                assert answers(app, request_id)
                assert not WAITING.search(app.process.output())  # it is still asking


# --- wrong values ---

WRONG_ADDRESSES = {
    "not set": ({}, ["MLFLOW_TRACKING_URI is not set", "http://localhost:5000"]),
    "database": (
        {"MLFLOW_TRACKING_URI": "sqlite:///x.db"},
        ["MLFLOW_TRACKING_URI=sqlite:///x.db needs the full mlflow package"],
    ),
    "unknown scheme": (
        {"MLFLOW_TRACKING_URI": "htp://nowhere"},
        ["MLFLOW_TRACKING_URI=htp://nowhere is not an address", "it must look like http://host:5000"],
    ),
    "no scheme": (
        {"MLFLOW_TRACKING_URI": "localhost:5000"},
        ["MLFLOW_TRACKING_URI=localhost:5000 is not an address", "it must look like http://host:5000"],
    ),
    "password": (
        {"MLFLOW_TRACKING_URI": "http://jane:hunter2@127.0.0.1:1"},
        ["MLFLOW_TRACKING_URI=http://127.0.0.1:1 cannot be reached"],
    ),
    "password with a slash": (
        {"MLFLOW_TRACKING_URI": "http://jane:hunter/2@127.0.0.1:5000"},
        ["MLFLOW_TRACKING_URI=http://127.0.0.1:5000 cannot be parsed"],
    ),
    "password before a bad host": (
        {"MLFLOW_TRACKING_URI": "http://jane:hunter2@no host:5000"},
        ["MLFLOW_TRACKING_URI=http://no host:5000 cannot be reached"],
    ),
    "password without a scheme": (
        {"MLFLOW_TRACKING_URI": "jane:hunter2@127.0.0.1:5000"},
        ["MLFLOW_TRACKING_URI=127.0.0.1:5000 is not an address"],
    ),
}


@pytest.mark.once
@pytest.mark.parametrize(("variables", "sentences"), WRONG_ADDRESSES.values(), ids=WRONG_ADDRESSES)
def test_a_wrong_address_is_reported(
    run: Run, request_id: str, variables: dict[str, str], sentences: list[str]
) -> None:
    """The line names the variable and a correct value, and no password; the app serves all the same."""
    with run(MLFLOW_EXPERIMENT_NAME="nobody-sees-it", **variables) as app:
        assert answers(app, request_id)
        log_has(app, *sentences)
        assert answers(app, request_id)

    output = app.process.output()
    assert "hunter" not in output
    assert "Traceback" not in output


@pytest.mark.once
def test_an_address_that_mlflow_itself_fails_on_is_reported(run: Run, request_id: str) -> None:
    """MLflow opens no span then; the request keeps its id, and the log has the message."""
    with run(MLFLOW_TRACKING_URI="http://[bad", MLFLOW_EXPERIMENT_NAME="nobody-sees-it") as app:
        answer = app.get("/sync/chats/c-1", x_request_id=request_id)
        log_has(app, "MLFLOW_TRACKING_URI=http://[bad cannot be parsed")

    assert (answer.status_code, answer.headers["X-Request-ID"]) == (200, request_id)
    assert answer.json()["request_id"] == request_id


@pytest.mark.once
def test_an_unknown_experiment_id_is_reported(server: MLflowServer, run: Run, request_id: str) -> None:
    """The line has the variable, the value and the server."""
    with run(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_ID="987654321") as app:
        assert answers(app, request_id)
        log_has(app, f"MLFLOW_EXPERIMENT_ID='987654321': {server.uri} has no experiment with this id")


@pytest.mark.once
@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"])
def test_a_deleted_experiment_is_reported_and_its_restoration_noticed(
    server: MLflowServer, run: Run, experiment: str, request_id: str, variable: str
) -> None:
    """By name or by id; traces from the meantime are stored once it is restored."""
    experiment_id = create_experiment(server, experiment)
    delete_experiment(server, experiment_id)
    value = experiment if variable.endswith("NAME") else experiment_id

    with run(**{"MLFLOW_TRACKING_URI": server.uri, variable: value}) as app:
        assert answers(app, request_id)
        log_has(app, f"{variable}='{value}': this experiment is deleted")
        url = f"{server.uri}/api/2.0/mlflow/experiments/restore"
        requests.post(url, json={"experiment_id": experiment_id}, timeout=30).raise_for_status()

        assert app.traces.one(request_id).info.experiment_id == experiment_id


@pytest.mark.once
def test_a_name_and_an_id_that_contradict_are_reported(
    server: MLflowServer, run: Run, experiment: str, request_id: str
) -> None:
    """The line shows which one won."""
    experiment_id = create_experiment(server, experiment)
    both = {"MLFLOW_EXPERIMENT_NAME": experiment, "MLFLOW_EXPERIMENT_ID": "0"}

    with run(MLFLOW_TRACKING_URI=server.uri, **both) as app:
        assert answers(app, request_id)
        log_has(
            app,
            f"MLFLOW_EXPERIMENT_ID=0 and MLFLOW_EXPERIMENT_NAME='{experiment}' contradict each other",
            f"that experiment's id is {experiment_id}",
        )
        assert app.traces.search() == []


@pytest.mark.once
@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", None])
def test_a_trace_stays_in_the_experiment_in_which_it_began(
    server: MLflowServer, experiment: str, variable: str | None
) -> None:
    """Also if the app chooses another one before the trace is sent; without a name, it is the server's default."""
    chosen, first = f"{experiment}-chosen", f"{experiment}-first"
    values = {"MLFLOW_EXPERIMENT_NAME": first, "MLFLOW_EXPERIMENT_ID": create_experiment(server, first)}
    named = {variable: values[variable]} if variable else {}
    before = len(Traces(server.uri, "Default").search("tags.`mlflow.traceName` = 'earlier'"))

    subprocess.run(
        [sys.executable, "-m", "tests.apps.chosen_later", chosen],
        env=clean_environment(MLFLOW_TRACKING_URI=server.uri, **named),
        cwd=ROOT,
        timeout=120,
        check=True,
    )

    def names(experiment: str) -> list[str]:
        return sorted(str(trace.info.tags["mlflow.traceName"]) for trace in Traces(server.uri, experiment).search())

    assert names(chosen) == ["later"]
    if variable:
        assert names(first) == ["earlier", "earlier, ended later"]
    else:
        assert len(Traces(server.uri, "Default").search("tags.`mlflow.traceName` = 'earlier'")) == before + 1


LATE = """
import os, sys
import mlflow
from mlflow_middleware.delivery.experiment import resolve_experiment, resolve_first_experiment
os.environ["MLFLOW_EXPERIMENT_ID"] = sys.argv[1]
uri = mlflow.get_tracking_uri()
print(resolve_experiment(uri), resolve_first_experiment(uri))
mlflow.set_experiment(experiment_id="0")
print(resolve_first_experiment(uri))
"""


@pytest.mark.once
def test_an_experiment_may_be_named_after_the_import(server: MLflowServer, experiment: str) -> None:
    """As with ``load_dotenv()``: traces that began before it was found go there, whatever the app chooses later."""
    first = create_experiment(server, experiment)

    done = subprocess.run(
        [sys.executable, "-c", LATE, first],
        env=clean_environment(MLFLOW_TRACKING_URI=server.uri),
        cwd=ROOT,
        timeout=120,
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == [first] * 3


# --- credentials ---


class StandIn(BaseHTTPRequestHandler):
    """Stands in for a gateway in front of the tracking server: requests without credentials get a 401."""

    server_uri: ClassVar[str]
    expected: ClassVar[str]

    def forward(self) -> None:
        """Forward the request, and return the answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != self.expected:
            self.answer(401, b'{"error_code": "UNAUTHENTICATED"}')
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        answer = requests.request(self.command, self.server_uri + self.path, headers=headers, data=body, timeout=30)
        self.answer(answer.status_code, answer.content)

    do_GET = do_POST = forward  # noqa: N815 - the names that http.server calls

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def guarded_by(authorization: str, server: MLflowServer) -> Iterator[str]:
    """Run a stand-in that requires this ``Authorization``; yields its address."""
    handler = type("Guard", (StandIn,), {"server_uri": server.uri, "expected": authorization})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as gateway:
        thread = threading.Thread(target=gateway.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{gateway.server_port}"
        finally:
            gateway.shutdown()
            thread.join()


BASIC = "Basic " + base64.b64encode(b"jane:hunter2").decode()


@pytest.mark.once
@pytest.mark.parametrize(
    ("authorization", "credentials"),
    [
        ("Bearer right", {"MLFLOW_TRACKING_TOKEN": "right"}),
        (BASIC, {"MLFLOW_TRACKING_USERNAME": "jane", "MLFLOW_TRACKING_PASSWORD": "hunter2"}),
    ],
    ids=["token", "password"],
)
def test_credentials_come_from_mlflows_variables(
    server: MLflowServer,
    run: Run,
    experiment: str,
    request_id: str,
    authorization: str,
    credentials: dict[str, str],
) -> None:
    """A bearer token, or user name and password."""
    with (
        guarded_by(authorization, server) as uri,
        run(MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME=experiment, **credentials) as app,
    ):
        assert answers(app, request_id)
        assert app.traces.one(request_id).info.client_request_id == request_id


@pytest.mark.once
@pytest.mark.parametrize("named", [{"MLFLOW_EXPERIMENT_NAME": "guarded"}, {}], ids=["by-name", "default"])
def test_wrong_credentials_are_reported(server: MLflowServer, run: Run, request_id: str, named: dict[str, str]) -> None:
    """The line has the variables to check, and not the token; also if no experiment has to be looked up."""
    with (
        guarded_by("Bearer right", server) as uri,
        run(MLFLOW_TRACKING_URI=uri, MLFLOW_TRACKING_TOKEN="hunter2", **named) as app,
    ):
        assert answers(app, request_id)
        log_has(app, f"MLFLOW_TRACKING_URI={uri} refused the credentials (401)", "MLFLOW_TRACKING_TOKEN")

    assert "hunter2" not in app.process.output()


def test_mlflow_is_the_slim_package() -> None:
    """The tests of this module run where MLflow's own look-up of the experiment fails."""
    if not mlflow.version.IS_TRACING_SDK_ONLY:
        pytest.skip("the full mlflow package is installed in this environment")
    assert not hasattr(mlflow, "MlflowClient")


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments",
    [["traces"], ["replay", "."], ["feedback", f"tr-{'0' * 32}", "--value", "1"], ["feedback", "r-1", "--value", "1"]],
    ids=["traces", "replay", "feedback-trace", "feedback-request"],
)
def test_a_command_without_an_address_fails(tmp_path: Path, arguments: list[str]) -> None:
    """It prints a message and has an exit code; nothing is written to a local store instead."""
    (tmp_path / "notes.txt").write_text("mine")
    command = [sys.executable, "-m", "mlflow_middleware.cli", *arguments]
    ended = subprocess.run(
        command, env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    if mlflow.version.IS_TRACING_SDK_ONLY:
        assert "MLFLOW_TRACKING_URI is not set; set it to the address of your MLflow server" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]
