"""Fixtures: one real MLflow server for the session, and the test apps in real server processes."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow.entities import Trace

from tests.mlflow_server import BACKEND
from tests.servers import (
    DEADLINE,
    MLflowServer,
    PostgreSQL,
    Process,
    clean_environment,
    command_for,
    eventually,
    free_port,
    serving,
)

APPS = {
    "asgi": (),
    "asgi-hypercorn": ("hypercorn",),
    "wsgi": (),
    "fastapi": ("fastapi",),
    "flask": ("flask",),
    "django-wsgi": ("django",),
    "django-asgi": ("django",),
}
"""Test app -> the packages that it needs besides uvicorn and gunicorn."""

SERVERS = {
    "django-lifespan": ("django",),
    "uvicorn": (),
    "uvicorn-workers": (),
    "gunicorn-sync": (),
    "gunicorn-gthread": (),
    "gunicorn-uvicorn": ("uvicorn_worker",),
    "gunicorn-preload": (),
}
"""Ways to serve the plain test apps -> the packages that they need."""


def pytest_make_parametrize_id(val: object) -> str | None:
    """Give tests short, plain ids, also where a parameter is long or odd; pytest numbers duplicates."""
    if isinstance(val, Enum):
        return val.name
    if not isinstance(val, str | bytes):
        return None
    text = val.decode("latin-1") if isinstance(val, bytes) else val
    is_plain = re.fullmatch(r"[\w./{}<>:=@-]{0,60}", text, re.ASCII)
    return None if is_plain else re.sub(r"\W+", "-", text[:24], flags=re.ASCII).strip("-") or "text"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[MLflowServer]:
    """The MLflow server of this session. Parallel workers share it: the first starts it, and ends it after them."""
    if BACKEND == "postgresql" and PostgreSQL.program("initdb") is None:
        pytest.skip("PostgreSQL is not installed (on Debian, it is the package postgresql)")
    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent
    guests = folder / "guests-of-the-server"
    database = PostgreSQL() if BACKEND == "postgresql" else None
    mlflow_server = MLflowServer(folder, port=_shared_port(folder), database=database)
    with _locked(folder):
        is_host = not guests.exists()
        if is_host:
            mlflow_server.start()
            guests.mkdir()
        else:
            (guests / worker_id).touch()
    yield mlflow_server
    if not is_host:
        (guests / worker_id).unlink()
        return
    while guests.exists():
        eventually(lambda: not list(guests.iterdir()), "the end of all other workers", 3600)
        with _locked(folder):
            if not list(guests.iterdir()):
                mlflow_server.stop()  # a worker that needs it only now becomes the next host
                guests.rmdir()


def _shared_port(folder: Path) -> int:
    """The port that the first worker chose."""
    chosen = folder / "port-of-the-server"
    with _locked(folder):
        if not chosen.exists():
            chosen.write_text(str(free_port()))
        return int(chosen.read_text())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Traces:
    """The traces that a server has stored of one experiment."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self.experiment = experiment
        self._experiment_id: str | None = None

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id once there is one, for which the server is asked until then."""
        if self._experiment_id is None:
            self._experiment_id = self._look_up()
        return self._experiment_id

    def _look_up(self) -> str | None:
        answer = requests.get(
            f"{self.uri}/api/2.0/mlflow/experiments/get-by-name",
            params={"experiment_name": self.experiment},
            timeout=60,
        )
        return answer.json()["experiment"]["experiment_id"] if answer.ok else None

    def search(self, query: str | None = None, limit: int = 500, spans: bool = True) -> list[Trace]:
        """Return the traces that MLflow's own search finds now."""
        experiment_id = self.experiment_id
        if experiment_id is None:
            return []
        mlflow.set_tracking_uri(self.uri)
        found: list[Trace] = mlflow.search_traces(
            locations=[experiment_id],
            filter_string=query,
            return_type="list",
            max_results=limit,
            include_spans=spans,
        )
        return found

    def wait(self, query: str, count: int = 1) -> list[Trace]:
        """Wait until this many complete traces match: with all of their info, and with spans."""

        def complete() -> bool:
            found = self.search(f"{query} AND span.name LIKE '%'", max(count, 100), spans=False)
            return sum(bool(trace.info.client_request_id) for trace in found) >= count

        pause = 0.25 if count < 50 else 1.0
        eventually(complete, f"{count} traces with {query}", DEADLINE + count, pause=pause)
        found: list[Trace] = []

        def with_spans() -> bool:  # MLflow leaves out a trace if more spans were announced than are stored
            found[:] = self.search(query, max(count, 100))
            return len(found) >= count

        eventually(with_spans, f"the spans of {count} traces with {query}", pause=pause)
        return found

    def one(self, request_id: str) -> Trace:
        """Wait for the one trace of a request."""
        (trace,) = self.wait(f"tags.client_request_id = '{request_id}'")
        return trace


@dataclass
class RunningApp:
    """A test app in its server process."""

    name: str
    url: str
    process: Process
    traces: Traces
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **headers: str) -> requests.Response:
        """Send a GET request, with headers written as ``x_user_id``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.get(self.url + path, headers=named, timeout=DEADLINE)

    def post(self, path: str, body: bytes, **headers: str) -> requests.Response:
        """Send a POST request, with headers written in the same way."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(self.url + path, data=body, headers=named, timeout=DEADLINE)


@dataclass
class AppRunner:
    """Starts test apps, each combination of name and settings only once."""

    server: MLflowServer
    folder: Path
    stack: ExitStack
    running: dict[str, RunningApp] = field(default_factory=dict)

    def __call__(self, name: str, options: dict[str, Any] | None = None, **variables: str) -> RunningApp:
        """Run an app.

        Args:
            name: A key of `APPS`.
            options: The middleware's options, given in the framework's own way.
            variables: Environment variables.
        """
        for package in (APPS | SERVERS)[name]:
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed in this environment")
        key = json.dumps([name, options, variables], sort_keys=True)
        if key not in self.running:
            self.running[key] = self._start(name, options or {}, variables)
        return self.running[key]

    def _start(self, name: str, options: dict[str, Any], variables: dict[str, str]) -> RunningApp:
        experiment = f"{name}-{uuid.uuid4().hex}"
        environment = clean_environment(
            **{
                "MLFLOW_TRACKING_URI": self.server.uri,
                "MLFLOW_EXPERIMENT_NAME": experiment,
                "APP_OPTIONS": json.dumps(options),
                "ENVIRONMENT": "production",
                "APP_VERSION": "1.2.3",
                "DEPLOYMENT_ID": "d-7",
                "REGION": "eu-west-1",
                **variables,
            }
        )
        port = free_port()
        log = self.folder / f"{experiment}.log"
        process, url = self.stack.enter_context(serving(command_for(name, port), environment, log, port))
        return RunningApp(name, url, process, Traces(environment["MLFLOW_TRACKING_URI"], experiment))


@pytest.fixture(scope="session")
def run_app(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppRunner]:
    """Run test apps that live until the session ends."""
    with ExitStack() as stack:
        yield AppRunner(server, tmp_path_factory.mktemp("apps"), stack)


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in APPS])
def app(request: pytest.FixtureRequest, run_app: AppRunner) -> RunningApp:
    """Each test app in turn, with default settings."""
    return run_app(request.param)


@pytest.fixture
def request_id() -> str:
    """A request id that no other test uses."""
    return uuid.uuid4().hex
