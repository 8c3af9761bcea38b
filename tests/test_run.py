"""``mlflow-middleware run``: apps without a line of ours, under real servers, are traced by what starts them."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.conftest import Traces
from tests.servers import DEADLINE, PATIENT, MLflowServer, Process, clean_environment, free_port

APPS = "tests.apps.unchanged"
BIN = Path(sys.executable).parent


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """A server's own command, as it is in the environment of the tests."""
    return (str(BIN / name), *arguments)


def module(*arguments: str) -> tuple[str, ...]:
    """A server as a module of Python."""
    return (sys.executable, "-m", *arguments)


@dataclass(frozen=True)
class Way:
    """A way to serve an app.

    Attributes:
        command: The command; ``{port}`` is where it is to listen.
        needs: What has to be installed.
        name: What the root span of ``GET /chats/c-1`` is called.
    """

    command: Sequence[str]
    needs: Sequence[str]
    name: str = "GET"


UVICORN = program("uvicorn", "--port", "{port}")
GUNICORN = program("gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "2")
HYPERCORN = program("hypercorn", "--bind", "127.0.0.1:{port}")
GRANIAN = program("granian", "--port", "{port}", "--no-ws")
ROUTED = "GET /chats/{chat_id}"
OF_RULE = "GET /chats/<chat_id>"
MANAGE = str(Path(__file__).parent / "apps" / "unchanged" / "manage.py")

WAYS = {
    "uvicorn": Way((*UVICORN, f"{APPS}.fastapi_app:app"), ["fastapi"], ROUTED),
    "uvicorn-module": Way(module("uvicorn", "--port", "{port}", f"{APPS}.fastapi_app:app"), ["fastapi"], ROUTED),
    "uvicorn-factory": Way((*UVICORN, "--factory", f"{APPS}.fastapi_app:create_app"), ["fastapi"], ROUTED),
    "uvicorn-reload": Way(
        (*UVICORN, "--reload", "--reload-dir", "docs", f"{APPS}.fastapi_app:app"), ["fastapi"], ROUTED
    ),
    "uvicorn-workers": Way((*UVICORN, "--workers", "2", f"{APPS}.fastapi_app:app"), ["fastapi"], ROUTED),
    "uvicorn-around": Way((*UVICORN, f"{APPS}.around:app"), ["fastapi"], ROUTED),
    "uvicorn-plain": Way((*UVICORN, f"{APPS}.plain:asgi"), []),
    "uvicorn-django": Way((*UVICORN, f"{APPS}.django_app:asgi"), ["django"], OF_RULE),
    "gunicorn-flask": Way((*GUNICORN, f"{APPS}.flask_app:app"), ["flask"], OF_RULE),
    "gunicorn-factory": Way((*GUNICORN, f"{APPS}.flask_app:create_app()"), ["flask"], OF_RULE),
    "gunicorn-preload": Way((*GUNICORN, "--preload", f"{APPS}.flask_app:app"), ["flask"], OF_RULE),
    "gunicorn-django": Way((*GUNICORN, f"{APPS}.django_app:wsgi"), ["django"], OF_RULE),
    "gunicorn-plain": Way((*GUNICORN, "--threads", "2", f"{APPS}.plain:wsgi"), []),
    "gunicorn-plain-preload": Way((*GUNICORN, "--preload", f"{APPS}.plain:wsgi"), []),
    "gunicorn-uvicorn": Way(
        (*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", f"{APPS}.fastapi_app:app"),
        ["fastapi", "uvicorn_worker"],
        ROUTED,
    ),
    "hypercorn": Way((*HYPERCORN, f"{APPS}.fastapi_app:app"), ["fastapi"], ROUTED),
    "hypercorn-workers": Way((*HYPERCORN, "--workers", "2", f"{APPS}.plain:asgi"), []),
    "hypercorn-wsgi": Way((*HYPERCORN, f"{APPS}.flask_app:app"), ["flask"], OF_RULE),
    "hypercorn-plain-wsgi": Way((*HYPERCORN, f"wsgi:{APPS}.plain:wsgi"), []),
    "flask-run": Way(program("flask", "--app", f"{APPS}.flask_app:app", "run", "--port", "{port}"), ["flask"], OF_RULE),
    "flask-debug": Way(
        program("flask", "--app", f"{APPS}.flask_app:app", "run", "--debug", "--port", "{port}"), ["flask"], OF_RULE
    ),
    "runserver": Way((MANAGE, "runserver", "127.0.0.1:{port}"), ["django"], OF_RULE),
    "fastapi-run": Way(
        program("fastapi", "run", "--port", "{port}", "tests/apps/unchanged/fastapi_app.py"),
        ["fastapi", "fastapi_cli"],
        ROUTED,
    ),
    "fastapi-dev": Way(
        program("fastapi", "dev", "--port", "{port}", "tests/apps/unchanged/fastapi_app.py"),
        ["fastapi", "fastapi_cli"],
        ROUTED,
    ),
    "granian": Way((*GRANIAN, "--interface", "asgi", f"{APPS}.fastapi_app:app"), ["fastapi", "granian"], ROUTED),
    "granian-plain": Way((*GRANIAN, "--interface", "asgi", "--workers", "2", f"{APPS}.plain:asgi"), ["granian"]),
    "granian-wsgi": Way((*GRANIAN, "--interface", "wsgi", f"{APPS}.plain:wsgi"), ["granian"]),
    "granian-flask": Way((*GRANIAN, "--interface", "wsgi", f"{APPS}.flask_app:app"), ["flask", "granian"], OF_RULE),
    "waitress": Way(
        program("waitress-serve", "--listen=127.0.0.1:{port}", f"{APPS}.flask_app:app"), ["flask", "waitress"], OF_RULE
    ),
    "waitress-plain": Way(program("waitress-serve", "--listen=127.0.0.1:{port}", f"{APPS}.plain:wsgi"), ["waitress"]),
    "daphne": Way(program("daphne", "-p", "{port}", f"{APPS}.django_app:asgi"), ["daphne", "django"], OF_RULE),
    "daphne-plain": Way(program("daphne", "-p", "{port}", f"{APPS}.plain:asgi"), ["daphne"]),
}


@dataclass
class Running:
    """A server that runs."""

    process: Process
    url: str
    traces: Traces


@contextmanager
def run(
    server: MLflowServer, folder: Path, options: Sequence[str], command: Sequence[str], **variables: str
) -> Iterator[Running]:
    """Have a command run by ours, until it answers."""
    port, experiment = free_port(), f"run-{uuid.uuid4().hex}"
    environment = clean_environment(
        MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=experiment, **PATIENT, **variables
    )
    ours = [sys.executable, "-m", "mlflow_middleware.cli", "run", *options]
    process = Process([*ours, *(part.format(port=port) for part in command)], environment, folder / "log")
    try:
        process.wait_until_up(f"http://127.0.0.1:{port}/health")
        yield Running(process, f"http://127.0.0.1:{port}", Traces(server.uri, experiment))
    finally:
        process.stop()


def skip_without(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed in this environment")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_unchanged_app_is_traced(way: Way, server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """Under each server: the answer has our headers, and one trace has the route's name and our option's session."""
    skip_without(*way.needs)
    with run(server, tmp_path, ["--session-id-header", "X-Chat-ID", "--"], way.command) as running:
        headers = {"X-Request-ID": request_id, "X-Chat-ID": "s-1"}
        answer = requests.get(f"{running.url}/chats/c-1", headers=headers, timeout=DEADLINE)
        trace = running.traces.one(request_id)

        assert answer.status_code == 200
        assert answer.headers["X-MLflow-Trace-ID"] == trace.info.trace_id
        assert [span.name for span in trace.data.spans] == [way.name]
        assert trace.info.tags["mlflow.trace.session"] == "s-1"
        assert "mlflow-middleware run" not in running.process.output()
