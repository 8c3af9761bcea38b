"""``mlflow-middleware run``: unchanged apps under real servers are traced by the command that starts them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from mlflow_middleware.commands.program import NotFound, found
from mlflow_middleware.commands.run import SITE, UsageError, split
from tests.conftest import Traces
from tests.servers import (
    DEADLINE,
    PATIENT,
    ROOT,
    MLflowServer,
    Process,
    clean_environment,
    eventually,
    free_port,
    serving,
)
from tests.talking import Talking

APPS = "tests.apps.unchanged"
BIN = Path(sys.executable).parent


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """Return a server's own command in the environment of the tests."""
    return (str(BIN / name), *arguments)


def module(*arguments: str) -> tuple[str, ...]:
    """Return a server as a module of Python."""
    return (sys.executable, "-m", *arguments)


@dataclass(frozen=True)
class Way:
    """A way to serve an app.

    Attributes:
        command: The command; ``{port}`` is the port to listen on.
        needs: Packages that must be installed.
        name: The name of the root span of ``GET /chats/c-1``.
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
MANAGE = str(ROOT / "tests" / "apps" / "unchanged" / "manage.py")

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
    "gunicorn-class": Way((*GUNICORN, f"{APPS}.plain:Answer"), []),
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
    """Run a command with ours, until it answers."""
    experiment = f"run-{uuid.uuid4().hex}"
    environment = clean_environment(
        MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=experiment, **PATIENT, **variables
    )
    ours = [sys.executable, "-m", "mlflow_middleware.cli", "run", *options]
    with serving([*ours, *command], environment, folder / "log") as (process, url):
        yield Running(process, url, Traces(server.uri, experiment))


def skip_without(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed in this environment")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_unchanged_app_is_traced(way: Way, server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """Under each server: the answer has our headers, and one trace has the route's name and the option's session."""
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


OWN = {
    "asgi": ((*UVICORN, "tests.apps.asgi_app:app"), ()),
    "wsgi": ((*GUNICORN, "tests.apps.wsgi_app:app"), ()),
    "fastapi": ((*UVICORN, "tests.apps.fastapi_app:app"), ("fastapi",)),
    "flask": ((*GUNICORN, "tests.apps.flask_app:app"), ("flask",)),
    "django-wsgi": ((*GUNICORN, "tests.apps.django_app:wsgi"), ("django",)),
    "django-asgi": ((*UVICORN, "tests.apps.django_app:asgi"), ("django",)),
    "wrapped": ((*UVICORN, f"{APPS}.own:app"), ("fastapi",)),
}


@pytest.mark.parametrize("name", OWN)
def test_an_app_with_its_own_middleware_is_left_alone(
    name: str, server: MLflowServer, tmp_path: Path, request_id: str
) -> None:
    """Its own options apply, there is one trace of a request, and a line reports it, once in a process."""
    command, needs = OWN[name]
    skip_without(*needs)
    own = json.dumps({"session_id_header": "X-Own"})
    with run(server, tmp_path, ["--session-id-header", "X-Ours"], command, APP_OPTIONS=own) as running:
        path = "/chats/c-1" if name == "wrapped" else "/status/200"
        headers = {"X-Request-ID": request_id, "X-Own": "of the app", "X-Ours": "of the command"}
        requests.get(f"{running.url}{path}", headers=headers, timeout=DEADLINE)
        trace = running.traces.one(request_id)

        assert trace.info.tags["mlflow.trace.session"] == "of the app"
        assert len(trace.data.spans) == len(running.traces.search(spans=False)) == 1
        workers = 2 if "gunicorn" in command[0] else 1
        assert 1 <= running.process.output().count("the app has the middleware already; nothing is added") <= workers


def test_an_unsupported_app_is_reported(server: MLflowServer, tmp_path: Path) -> None:
    """An app for Granian's own protocol runs without traces."""
    skip_without("granian")
    command = (*GRANIAN, "--interface", "rsgi", f"{APPS}.plain:rsgi")
    with run(server, tmp_path, [], command) as running:
        assert "the app is not traced: function is an RSGI app, not ASGI 3 or WSGI" in running.process.output()


def test_a_reloaded_app_is_traced(server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """Before and after its code changes."""
    skip_without("fastapi")
    text = (
        "from tests.apps.unchanged.fastapi_app import app\n@app.get('/version')\ndef version() -> int:\n    return 1\n"
    )
    (tmp_path / "reloaded.py").write_text(text)
    options = ("--reload", "--reload-dir", str(tmp_path), "--app-dir", str(tmp_path))
    with run(server, tmp_path, [], (*UVICORN, *options, "reloaded:app")) as running:

        def answer(**headers: str) -> str:
            try:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return requests.get(f"{running.url}/version", headers=named, timeout=DEADLINE).text
            except requests.ConnectionError:
                return "none"

        assert answer(x_request_id=f"{request_id}-1") == "1"
        (tmp_path / "reloaded.py").write_text(text.replace("return 1", "return 20"))
        eventually(lambda: answer() == "20", "the new code", pause=1.0)

        assert answer(x_request_id=f"{request_id}-20") == "20"
        assert running.traces.one(f"{request_id}-1").data.spans[0].outputs == 1
        assert running.traces.one(f"{request_id}-20").data.spans[0].outputs == 20


@pytest.mark.parametrize("name", ["uvicorn-django", "flask-run", "waitress"])
def test_the_last_traces_are_delivered(name: str, server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """At SIGTERM, though Django has no lifespan of its own, and requests of Flask come in threads."""
    skip_without(*WAYS[name].needs)
    with run(server, tmp_path, [], WAYS[name].command) as running:
        for _ in range(20):
            requests.get(f"{running.url}/chats/c-1", headers={"X-Session-ID": request_id}, timeout=DEADLINE)
        running.process.stop(signal.SIGTERM, DEADLINE)

        assert len(running.traces.search(f"tags.mlflow.trace.session = '{request_id}'", spans=False)) == 20


# --- the command line ---


def start(*arguments: str, folder: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run our command to its end."""
    command = [sys.executable, "-m", "mlflow_middleware.cli", "run", *arguments]
    environment = clean_environment(**variables)
    return subprocess.run(
        command, env=environment, cwd=folder or None, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


PRINT = "import os, sys; print(os.environ.get('MLFLOW_MIDDLEWARE_SESSION_ID_HEADER'), *sys.argv[1:]); sys.exit(7)"


def test_arguments_and_exit_code_pass_through() -> None:
    """Our options become variables; the command's options, even with our names, stay the command's."""
    done = start("--session-id-header=X-A", sys.executable, "-c", PRINT, "--session-id-header", "X-B", "--", "-h")

    assert (done.stdout, done.stderr, done.returncode) == ("X-A --session-id-header X-B -- -h\n", "", 7)


def test_the_process_becomes_the_command(tmp_path: Path) -> None:
    """It has the same process id, and a signal reaches it directly."""
    program = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    command = [sys.executable, "-m", "mlflow_middleware.cli", "run", "--", sys.executable, "-c", program]
    with Talking(command, clean_environment(), tmp_path / "log") as process:
        assert int(process.line()) == process.pid

        assert process.stop(signal.SIGTERM, DEADLINE) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--session-idheader", "X", "uvicorn"], 2, "'session_idheader' (did you mean 'session_id_header'?)"),
        (["--sample-ratio", "7", "uvicorn"], 2, "'sample_ratio': input should be less than or equal to 1, not '7'"),
        (["--enabled", "uvicorn", "app:app"], 2, "option 'enabled': input should be a valid boolean"),
        (["--sample-ratio"], 2, "option '--sample-ratio' needs a value"),
        (["--"], 2, "the command is missing"),
        ([], 2, "usage: mlflow-middleware run"),
        (["no-such-program"], 127, "no-such-program was not found: no such program on PATH"),
        (["./tox.ini"], 126, "./tox.ini cannot be run"),
    ],
)
def test_a_mistake_is_reported_before_the_app_starts(arguments: list[str], code: int, message: str) -> None:
    """The exit code is a shell's, and nothing is started."""
    done = start(*arguments, folder=str(ROOT))

    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_a_wrong_option_in_the_environment_is_reported_too() -> None:
    """Options that name the app's own code are checked by the app."""
    own = {"MLFLOW_MIDDLEWARE_IDENTIFY": "code_of_the_app:identify"}
    assert start(sys.executable, "-c", "", **own).returncode == 0

    done = start(sys.executable, "-c", "print('started')", MLFLOW_MIDDLEWARE_SAMPLE_RATO="1", **own)
    assert (done.returncode, done.stdout) == (2, "")
    assert "(did you mean 'sample_ratio'?) (from MLFLOW_MIDDLEWARE_SAMPLE_RATO)" in done.stderr


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn-flask", "uvicorn-plain"])
def test_wrong_code_of_the_app_fails_its_start(name: str) -> None:
    """As with an explicit middleware."""
    skip_without(*WAYS[name].needs)
    port = free_port()
    done = start(
        "--identify", "code_of_the_app:identify", "--", *(part.format(port=port) for part in WAYS[name].command)
    )

    assert done.returncode != 0
    assert "option 'identify'" in done.stderr


@pytest.mark.parametrize("options", [["-I"], ["-E"], ["-S"], ["-sIB"], ["-X", "dev", "-I"], ["-Wignore", "-E"]])
def test_a_python_that_ignores_our_path_is_reported(options: list[str]) -> None:
    """The app runs all the same."""
    done = start("--", sys.executable, *options, "-c", "print('runs')")

    assert done.stdout == "runs\n"
    assert done.stderr.startswith("mlflow-middleware run: the app will not be traced: with -")


@pytest.mark.parametrize(
    ("first_line", "python"),
    [
        (f"#!{sys.executable}", [sys.executable]),
        (f"#!{sys.executable} -sE", [sys.executable, "-sE"]),
        (f"#!/usr/bin/env -S {sys.executable} -I", [sys.executable, "-I"]),
        (f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''", [sys.executable]),
        ("#!/bin/sh", []),
        ("#!", []),
        ("#!'", []),
        ("\x7fELF", []),
    ],
)
def test_the_interpreter_of_a_script_is_found(first_line: str, python: list[str], tmp_path: Path) -> None:
    """In its first lines, also as pip writes them for a long path."""
    script = tmp_path / "serve"
    script.write_text(f"{first_line}\n")
    script.chmod(0o755)

    program = found([str(script), "-I"])

    assert list(program.python) == python
    assert bool(list(program.problems())) == (not python or len(python) > 1)


def test_programs_that_hide_the_app_are_reported(tmp_path: Path) -> None:
    """By their names."""
    for name in ("opentelemetry-instrument", "sanic", "uwsgi"):
        (tmp_path / name).write_text(f"#!{sys.executable}\n")
        (tmp_path / name).chmod(0o755)
        (line,) = found([str(tmp_path / name)]).problems()
        assert name in line.lower()


def test_another_python_without_the_package_is_reported() -> None:
    """It runs the app, without traces."""
    other = str(Path(sys.base_prefix) / "bin" / "python3")
    done = start("--", other, "-c", "print('runs')")

    assert done.stdout == "runs\n"
    assert f"{other}, which runs python3, has no mlflow-middleware; install it there" in done.stderr


def test_a_file_that_is_not_executable_runs_in_our_python(tmp_path: Path) -> None:
    """As `manage.py` is often given."""
    (tmp_path / "manage.py").write_text("import sys; print(sys.executable, *sys.argv)")

    assert start("manage.py", "runserver", folder=str(tmp_path)).stdout == f"{sys.executable} manage.py runserver\n"


def test_another_sitecustomize_is_loaded_too(tmp_path: Path) -> None:
    """It is the one that Python would have found, and the one that can be imported."""
    (tmp_path / "sitecustomize.py").write_text("print('theirs')\nname = 'theirs'\n")
    program = "import sitecustomize, sys; print(sitecustomize.name, *map(str, sys.meta_path[:1]))"
    done = start("--", sys.executable, "-c", program, PYTHONPATH=str(tmp_path))

    *_, last = done.stdout.splitlines()
    assert last.startswith("theirs <mlflow_middleware.auto.Finder object")


def test_an_empty_entry_of_the_path_stays(tmp_path: Path) -> None:
    """It is the current folder, as after ``export PYTHONPATH=$PYTHONPATH:/somewhere``."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "serve.py").write_text("import beside; print(beside.__name__)")
    (tmp_path / "beside.py").touch()
    done = start("--", sys.executable, "bin/serve.py", folder=str(tmp_path), PYTHONPATH=f"{os.pathsep}/somewhere")

    assert (done.stdout, done.stderr) == ("beside\n", "")


def test_a_process_that_serves_nothing_imports_nothing() -> None:
    """Neither MLflow nor our settings; and in a `run` inside another, the folder is on the path once."""
    program = "import os, sys; print('mlflow' in sys.modules, 'pydantic' in sys.modules, os.environ['PYTHONPATH'])"
    ours = [sys.executable, "-m", "mlflow_middleware.cli", "run"]
    done = start("--", *ours, "--", sys.executable, "-c", program, PYTHONPATH="/somewhere")

    assert done.stdout == f"False False {SITE}{os.pathsep}/somewhere\n"


def test_options_end_where_the_command_begins() -> None:
    """With and without the two dashes."""
    assert split(["--tags", "a=b", "uvicorn", "--tags"]) == ({"tags": "a=b"}, ["uvicorn", "--tags"])
    assert split(["--Session-ID-header=X", "--", "--odd"]) == ({"session_id_header": "X"}, ["--odd"])
    with pytest.raises(UsageError):
        split(["--tags=a"])
    with pytest.raises(NotFound):
        found(["no-such-program"])


def test_help_lists_the_options() -> None:
    """Before a command; after it, the option is the command's."""
    done = start("--help")

    assert done.returncode == 0
    assert "--session-id-header" in done.stdout
    assert start(sys.executable, "-c", "import sys; print(sys.argv)", "--help").stdout == "['-c', '--help']\n"


BROKEN = """
import sys
sys.modules["pydantic_settings"] = None
from flask import Flask
from waitress.server import create_server
Flask("app").test_client().get("/")
create_server(Flask("app"), port=0).close()
print("runs")
"""


def test_an_installation_that_is_broken_breaks_no_app() -> None:
    """An import error is reported, and the app goes on."""
    skip_without("flask")
    program = BROKEN if importlib.util.find_spec("waitress") else re.sub(".*create_server.*", "", BROKEN)
    done = start("--", sys.executable, "-c", program)

    assert (done.stdout, done.returncode) == ("runs\n", 0)
    assert "the app is not traced: ModuleNotFoundError" in done.stderr
