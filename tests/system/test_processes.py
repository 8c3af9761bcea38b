"""Every kind of process delivers its traces, however it is started, runs its threads, and ends."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.conftest import Traces
from tests.servers import DEADLINE, PATIENT, ROOT, MLflowServer, Process, clean_environment, eventually, serving

pytestmark = pytest.mark.once


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class Host:
    """A process that traces, into an experiment of its own."""

    def __init__(self, server: MLflowServer, folder: Path) -> None:
        self.name = uuid.uuid4().hex
        self.traces = Traces(server.uri, self.name)
        self.folder = folder
        self.log = folder / f"{self.name}.log"

    def environment(self, **variables: str) -> dict[str, str]:
        """Its environment variables."""
        where = {"MLFLOW_TRACKING_URI": self.traces.uri, "MLFLOW_EXPERIMENT_NAME": self.name}
        return clean_environment(**{**where, **PATIENT, **variables})

    @contextmanager
    def serving(self, command: list[str], *, fresh: bool = False, **variables: str) -> Iterator[Process]:
        """A server on ``{port}`` that is running, or that has just begun to listen."""
        with serving(command, self.environment(**variables), self.log, fresh=fresh) as (process, self.url):
            try:
                yield process
            finally:
                process.kill()

    def run(self, *command: str, **variables: str) -> None:
        """Run a command to its end."""
        with self.log.open("ab") as log:
            subprocess.run(
                command,
                env=self.environment(**variables),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                check=True,
                timeout=DEADLINE,
            )

    def ask(self, count: int, start: int = 0, path: str = "/status/200") -> None:
        """Send requests whose ids are ``<name>-<number>``, eight at a time; all must be answered."""

        def one(number: int) -> int:
            headers = {"X-Request-ID": f"{self.name}-{number}"}
            return requests.get(f"{self.url}{path}", headers=headers, timeout=60).status_code

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(one, range(start, start + count))) == [200] * count

    def stored(self, count: int) -> None:
        """Wait until this many of them are stored, each once."""
        found = self.traces.wait(f"tags.client_request_id LIKE '{self.name}-%'", count)
        assert sorted(str(trace.info.client_request_id) for trace in found) == sorted(
            f"{self.name}-{number}" for number in range(count)
        )

    def text(self) -> str:
        """Return its output and its log."""
        return self.log.read_text()


@pytest.fixture
def host(server: MLflowServer, tmp_path: Path) -> Host:
    return Host(server, tmp_path)


# --- threads that are greenlets ---

GEVENT = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--worker-class", "gevent"]


@needs("gevent")
@pytest.mark.parametrize("preload", ["--preload", "--reuse-port"])
def test_requests_that_find_a_fresh_gevent_worker_at_once(host: Host, preload: str) -> None:
    """Also if the app was loaded before gevent has patched the worker."""
    with host.serving([*GEVENT, preload, "tests.apps.preloaded_app:app"], fresh=True) as process:
        host.ask(8)
        host.stored(8)
        assert process.stop() == 0


@needs("gevent")
@pytest.mark.parametrize("patch", ["before", "after"])
def test_a_process_patched_by_gevent(host: Host, patch: str) -> None:
    """Before our import or after it: greenlets and native threads wake each other, also at the exit."""
    command = [sys.executable, "-m", "tests.apps.patched_app", "{port}"]
    with host.serving(command, PATCH=patch) as process:
        host.ask(8)
        host.stored(8)
        host.ask(12, start=8)
        process.stop()
    host.stored(20)


# --- processes that are forked without Python's hooks ---

UWSGI = [str(Path(sys.executable).with_name("uwsgi")), "--http-socket", "127.0.0.1:{port}", "--master", "--die-on-term"]
needs_uwsgi = pytest.mark.skipif(not Path(UWSGI[0]).exists(), reason="not installed: uwsgi")


@needs_uwsgi
@pytest.mark.parametrize("way", ["-p 2", "-p 2 --enable-threads", "-p 1 --lazy-apps", "-p 2 --threads 4"])
def test_uwsgi_workers(host: Host, way: str) -> None:
    """They are forked in C, without Python's hooks; older uWSGI runs no threads unless configured to."""
    with host.serving([*UWSGI, *way.split(), "-w", "tests.apps.wsgi_app:app"]) as process:
        host.ask(20)
        assert process.stop() == 0
    host.stored(20)


@needs_uwsgi
@needs("gevent")
@pytest.mark.parametrize("way", ["--gevent 20", "--gevent 20 --gevent-monkey-patch"])
def test_uwsgi_with_greenlets(host: Host, way: str) -> None:
    """While it runs; with greenlets, uWSGI runs no exit hooks."""
    with host.serving([*UWSGI, "-p", "2", *way.split(), "-w", "tests.apps.wsgi_app:app"]):
        host.ask(20)
        host.stored(20)


@needs_uwsgi
def test_uwsgis_spooler(host: Host) -> None:
    """It is no worker, and forks none: its tasks' traces are stored while it runs."""
    folder = host.folder / "spool"
    folder.mkdir()
    with host.serving([*UWSGI, "-p", "1", "--spooler", str(folder), "-w", "tests.apps.spooler_app"]):
        host.ask(3)
        host.stored(3)


# --- children that leave by os._exit ---


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("kind", ["process", "executor", "pool"])
@pytest.mark.parametrize("parent", ["", "traces"])
def test_children_of_multiprocessing(host: Host, kind: str, method: str, parent: str) -> None:
    """They end by ``os._exit``, and those of a pool are terminated."""
    host.run(sys.executable, "-m", "tests.apps.children", kind, method, host.name, TRACES_IN_PARENT=parent)
    host.stored(5)


@needs("billiard")
def test_children_of_billiard(host: Host) -> None:
    """Celery's fork of multiprocessing."""
    host.run(sys.executable, "-m", "tests.apps.children", "billiard", "fork", host.name, TRACES_IN_PARENT="yes")
    host.stored(5)


@needs("celery")
@pytest.mark.parametrize("limit", ["1", "100"])
def test_celery_workers(host: Host, limit: str) -> None:
    """Workers that end after each task, and workers that end with their parent."""
    celery = [sys.executable, "-m", "celery", "-A", "tests.apps.celery_app"]
    folder = str(host.folder)
    for number in range(6):
        host.run(*celery, "call", "tests.apps.celery_app.work", f'--args=["{host.name}-{number}"]', FOLDER=folder)
    worker = [*celery, "worker", "--concurrency=2", f"--max-tasks-per-child={limit}", "--loglevel=info"]
    with Process(worker, host.environment(FOLDER=folder), host.log) as process:
        eventually(lambda: host.text().count("succeeded in") == 6, "the tasks")
        process.stop()
    host.stored(6)


@pytest.mark.parametrize("path", ["/fork", "/process"])
def test_a_child_that_is_forked_inside_a_request(host: Host, path: str) -> None:
    """Its traces are its own, as the request ends elsewhere, with a link to the request's span."""
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "tests.apps.forking_app:app"]
    with host.serving(gunicorn):
        host.ask(1, path=path)
        child = host.traces.one(f"child-of-{host.name}-0")
        request = host.traces.one(f"{host.name}-0")
    assert [span.name for span in child.data.spans] == ["job", "step"]
    assert child.info.trace_id != request.info.trace_id
    (link,) = child.data.spans[0].links
    assert link.trace_id == request.info.trace_id


# --- signals ---

PYTHON = [sys.executable, "-m"]
KILLED = {
    "waitress": [*PYTHON, "waitress", "--listen", "127.0.0.1:{port}", "tests.apps.wsgi_app:app"],
    "flask": [*PYTHON, "flask", "--app", "tests.apps.flask_app:app", "run", "--port", "{port}"],
    "django": [
        *(*PYTHON, "django", "runserver", "--noreload"),
        *("--settings", "tests.apps.django_app", "127.0.0.1:{port}"),
    ],
    "granian": [*PYTHON, "granian", "--interface", "wsgi", "--port", "{port}", "tests.apps.wsgi_app:app"],
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("killed", [pytest.param(name, marks=needs(name)) for name in KILLED if name != "granian"])
def test_a_signal_that_kills(host: Host, killed: str, number: signal.Signals) -> None:
    """It delivers all traces first; then it kills."""
    with host.serving(KILLED[killed]) as process:
        host.ask(20)
        assert process.stop(number) == -number
    host.stored(20)


@needs("granian")
def test_workers_ended_by_granian(host: Host) -> None:
    """They leave by ``os._exit``."""
    with host.serving(KILLED["granian"]) as process:
        host.ask(20)
        assert process.stop() == 0
    host.stored(20)


def test_a_signal_without_our_handler(host: Host) -> None:
    """If the option disables it, and if the app has a handler of its own."""
    script = """
import os, signal, mlflow_middleware.delivery as delivery
from mlflow_middleware.settings import Settings
if os.environ["OWN"]: signal.signal(signal.SIGTERM, print)
before = signal.getsignal(signal.SIGTERM)
delivery.start(Settings.load())
assert signal.getsignal(signal.SIGTERM) is before
"""
    host.run(sys.executable, "-c", script, OWN="", MLFLOW_MIDDLEWARE_HANDLE_SIGNALS="false")
    host.run(sys.executable, "-c", script, OWN="yes")


def test_a_child_that_never_traces_dies_at_once(host: Host) -> None:
    """The parent's handler is not its own: the child may be in a call that no handler interrupts."""
    script = """
import os, signal, mlflow_middleware.delivery as delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
if os.fork() == 0:
    os._exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
assert os.wait()[1] == 0
"""
    host.run(sys.executable, "-c", script)


def test_a_handler_that_passes_a_signal_on(host: Host) -> None:
    """An app's own handler, set after ours, which calls the previous one: it stays, and ends the process."""
    script = """
import os, signal, sys, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
before, told = signal.getsignal(signal.SIGTERM), []
def stop(number, frame):
    before(number, frame)
    told.append(number)
signal.signal(signal.SIGTERM, stop)
for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
assert signal.getsignal(signal.SIGTERM) is stop and len(told) == 2
with mlflow.start_span("the last request"):
    mlflow.update_current_trace(client_request_id=sys.argv[1], tags={"client_request_id": sys.argv[1]})
"""
    host.run(sys.executable, "-c", script, f"{host.name}-0")
    host.stored(1)


def test_a_signal_that_comes_twice_at_once(host: Host) -> None:
    """A supervisor signals the whole process group, and `uv run` passes its own signal on: that is one stop."""
    script = """
import os, signal, sys, threading, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
with mlflow.start_span("the last request"):
    mlflow.update_current_trace(client_request_id=sys.argv[1], tags={"client_request_id": sys.argv[1]})
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
"""
    command = [sys.executable, "-c", script, f"{host.name}-0"]
    ended = subprocess.run(command, env=host.environment(), cwd=ROOT, timeout=120, check=False)
    assert ended.returncode == -signal.SIGTERM
    host.stored(1)


def test_a_later_signal_does_not_wait(host: Host) -> None:
    """Someone who stops it once more does not want to wait for a server that does not answer."""
    script = """
import os, signal, threading, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
with mlflow.start_span("the last request"):
    pass
while True:
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(0.2)
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = host.environment(MLFLOW_TRACKING_URI=uri, MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="300")
        command = [sys.executable, "-c", script]
        ended = subprocess.run(command, env=environment, cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == -signal.SIGTERM


def test_a_child_that_is_forked_while_its_parent_dies(host: Host) -> None:
    """The parent's signal is not for the child."""
    script = """
import os, threading
from mlflow_middleware import delivery
from mlflow_middleware.delivery import exits
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
exits._on_signal(threading.Event().wait, 15, None)
if os.fork() == 0:
    exits.finish(bool)
    os._exit(0)
status = os.wait()[1]
os._exit(status)
"""
    host.run(sys.executable, "-c", script)
