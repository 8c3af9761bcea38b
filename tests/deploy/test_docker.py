"""The Dockerfiles and the compose file: validated, built step by step, and their services run as local processes.

There is no container engine. This machine's PostgreSQL is used, moto's server stands in for the S3-compatible store,
and this Python for the base image's.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import yaml

from tests.deploy.compose import Compose, run_to_its_end
from tests.deploy.dockerfile import Image, build, instructions
from tests.servers import ROOT, PostgreSQL, Process, eventually, spooled

DOCKER = ROOT / "examples" / "docker"
DOCKERFILES = ["Dockerfile", "mlflow.Dockerfile"]
PROGRAMS = Path(sys.executable).parent
SECRETS = {"POSTGRES_PASSWORD": "of-the-database", "S3_PASSWORD": "of-the-store", "APP_VERSION": "1.2.3"}
CHAT = {"messages": [{"role": "user", "content": "Tea?"}]}


def seconds(duration: str) -> float:
    """Parse a duration as compose and Docker write it."""
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_linter_finds_nothing(name: str) -> None:
    """With all of hadolint's rules."""
    done = subprocess.run([str(PROGRAMS / "hadolint"), str(DOCKER / name)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_fits_its_schema() -> None:
    """The schema is the compose specification's own."""
    checker, file = str(PROGRAMS / "check-jsonschema"), str(DOCKER / "compose.yaml")
    command = [checker, "--builtin-schema", "vendor.compose-spec", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_does_not_run_as_root_and_gets_signals(name: str) -> None:
    """It has a numeric user, which Kubernetes can check, and its command has no shell around it."""
    said = {step.keyword: step.rest for step in instructions(DOCKER / name)}

    assert int(said["USER"]) > 0
    assert isinstance(json.loads(said["CMD"]), list)
    assert said.get("STOPSIGNAL", "SIGTERM") == "SIGTERM"


def test_copied_files_are_in_the_context() -> None:
    """``.dockerignore`` excludes everything that the Dockerfile does not name."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for step in instructions(DOCKER / "Dockerfile")
        if step.keyword == "COPY" and "from" not in step.options
        for source in step.rest.split()[:-1]
    ]

    assert {source.split("/")[0] for source in copied} == kept


def test_an_exit_gets_the_time_that_it_needs() -> None:
    """The time for open requests, then for delivery, fits before compose kills the container."""
    app = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["app"]
    command = json.loads({step.keyword: step.rest for step in instructions(DOCKER / "Dockerfile")}["CMD"])
    requests_take = float(command[command.index("--timeout-graceful-shutdown") + 1])

    assert seconds(app["stop_grace_period"]) >= requests_take + 5 + 3  # 5: the default of shutdown_timeout


# --- built -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The build directory: a short path, as it is in the first line of every script."""
    place = Path(tempfile.mkdtemp(prefix="images-"))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def app_image(folder: Path) -> Image:
    """The app's image, in a folder."""
    return build(DOCKER / "Dockerfile", ROOT, folder / "app")


@pytest.fixture(scope="module")
def mlflow_image(folder: Path) -> Image:
    """The MLflow server's image, in a folder."""
    return build(DOCKER / "mlflow.Dockerfile", DOCKER, folder / "mlflow")


def test_the_image_contains_only_what_it_runs(app_image: Image) -> None:
    """It has the slim package, the app, and a place for the spool; neither sources nor full MLflow."""
    files = {path.relative_to(app_image.root).as_posix() for path in app_image.root.glob("*/*")}
    program = "import mlflow.tracing, importlib.util; print(importlib.util.find_spec('mlflow.server'))"

    assert files == {"usr/local", "opt/venv", "app/fastapi_app.py", "var/spool"}
    assert (app_image.root / "var/spool/traces").is_dir()
    assert run_to_its_end(["python", "-c", program], app_image.environment, app_image.root) == "None\n"
    assert app_image.left_out == ["useradd --system --no-create-home --uid 10001 app"]


# --- run -------------------------------------------------------------------------------------------------------


@dataclass
class Stack:
    """The services of the compose file, as processes.

    Attributes:
        compose: The file.
        app_image: The app's image.
        mlflow_image: The MLflow server's image.
        logs: The directory of their logs.
        stack: Ends everything that has been started.
    """

    compose: Compose
    app_image: Image
    mlflow_image: Image
    logs: Path
    stack: ExitStack

    def start(self, service: str, command: list[str], environment: dict[str, str], ask: str) -> Process:
        """Start one of them, and wait until it answers; it is ended with the others."""
        process = self.stack.enter_context(Process(command, environment, self.logs / service, self.logs))
        process.wait_until_up(ask)
        return process

    def url(self, service: str, port: str) -> str:
        """Return the address of one of them."""
        return f"http://localhost:{self.compose.port(service, port)}"

    @property
    def app_environment(self) -> dict[str, str]:
        return {**self.app_image.environment, **self.compose.environment("app")}

    @contextmanager
    def app(self) -> Iterator[Process]:
        """Start the app like its image does, and end it like an engine does."""
        command = self.compose.listening("app", self.app_image.command())
        environment = {**self.app_environment, "PYTHONPATH": str(self.app_image.directory)}
        process = self.start("app", command, environment, f"{self.url('app', '8000')}/health")
        yield process
        assert process.stop(signal.SIGTERM) in (0, -signal.SIGTERM)

    def mlflow(self) -> None:
        """Start the MLflow server like the compose file does."""
        environment = {**self.mlflow_image.environment, **self.compose.environment("mlflow")}
        self.start("mlflow", self.compose.command("mlflow"), environment, f"{self.url('mlflow', '5000')}/health")

    def chat(self) -> str:
        """Send one request to the app; return its id."""
        request_id = uuid.uuid4().hex
        answer = requests.post(
            f"{self.url('app', '8000')}/chats/c-1/messages", json=CHAT, headers={"X-Request-ID": request_id}, timeout=60
        )
        assert answer.json()["choices"][0]["message"]["content"] == "Question 1 was: Tea?"
        return request_id

    def stored(self, request_id: str) -> int:
        """Return how many traces of a request are stored with the deployment tags that the app's image finds."""
        tags = ["--tag", "environment=compose", "--tag", f"app_version={SECRETS['APP_VERSION']}"]
        command = ["mlflow-middleware", "traces", "--request", request_id, *tags, "--json"]
        return len(json.loads(run_to_its_end(command, self.app_environment, self.logs)))


@pytest.fixture(scope="module")
def stack(app_image: Image, mlflow_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start database, store and bucket, and the MLflow server on top of them; each test starts the app."""
    if PostgreSQL.program("postgres") is None:
        pytest.skip("PostgreSQL is not installed (Debian: the package postgresql)")
    compose = Compose(DOCKER / "compose.yaml", SECRETS)
    with ExitStack() as exits:
        running = Stack(compose, app_image, mlflow_image, tmp_path_factory.mktemp("logs"), exits)
        database = PostgreSQL()
        exits.callback(database.stop)
        port = int(database.start().partition("127.0.0.1:")[2].partition("/")[0])
        compose.ports["postgres", "5432"] = port
        owner = compose.services["postgres"]["environment"]
        create = [PostgreSQL.program("createdb") or "createdb", "-h", "127.0.0.1", "-p", str(port)]
        subprocess.run([*create, "-U", owner["POSTGRES_USER"], owner["POSTGRES_DB"]], check=True, timeout=60)
        store = [str(PROGRAMS / "moto_server"), "--host", "127.0.0.1", "--port", str(compose.port("s3", "9000"))]
        running.start("s3", store, {}, running.url("s3", "9000"))
        environment = {**mlflow_image.environment, **compose.environment("bucket")}
        for _ in ("up", "up again"):
            run_to_its_end(compose.command("bucket"), environment, running.logs)
        running.mlflow()
        yield running


def test_a_request_is_stored_by_all_of_them_together(stack: Stack) -> None:
    """App, MLflow server with its workers, PostgreSQL and the artifact store run as in the files."""
    with stack.app():
        request_id = stack.chat()
        eventually(lambda: stack.stored(request_id) == 1, "the trace", pause=1)

        healthy = run_to_its_end(stack.app_image.command("HEALTHCHECK"), stack.app_environment, stack.logs)
        last = stack.chat()

    assert "passed  read back" in healthy
    assert stack.stored(last) == 1


def test_the_server_answers_only_to_its_names(stack: Stack) -> None:
    """These are the names that the other services and this host use; all others are refused."""
    url = f"{stack.url('mlflow', '5000')}/api/2.0/mlflow/experiments/search?max_results=1"

    def status(host: str) -> int:
        return requests.get(url, headers={"Host": host}, timeout=60).status_code

    own_name = stack.compose.environment("app")["MLFLOW_TRACKING_URI"].removeprefix("http://")
    named = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["app"]["environment"]
    assert status(named["MLFLOW_TRACKING_URI"].removeprefix("http://")) == 200
    assert status(own_name) == 200
    assert status("127.0.0.1:5000") == 200
    assert status("elsewhere.example:5000") == 403


def test_artifacts_are_in_the_store(stack: Stack) -> None:
    """A file that is uploaded through the MLflow server is an object in the bucket."""
    name = f"{uuid.uuid4().hex}.txt"
    url = f"{stack.url('mlflow', '5000')}/api/2.0/mlflow-artifacts/artifacts/{name}"

    assert requests.put(url, data=b"kept", timeout=60).status_code == 200

    listed = requests.get(f"{stack.url('s3', '9000')}/mlflow?list-type=2", timeout=60).text
    assert f"<Key>{name}</Key>" in listed
    assert requests.get(url, timeout=60).content == b"kept"


def test_traces_outlive_an_outage_and_the_container(stack: Stack) -> None:
    """Without a server, the app answers and spools its traces on the volume at its exit; the next one delivers them."""
    spool = stack.app_image.root / "var/spool/traces"
    ports = stack.compose.ports
    there = ports.pop(("mlflow", "5000"))  # the app gets another address, where nothing listens
    with stack.app():
        request_id = stack.chat()
    assert spooled(spool) == 1

    ports["mlflow", "5000"] = there
    with stack.app():
        eventually(lambda: spooled(spool) == 0, "an empty spool")

    assert stack.stored(request_id) == 1
