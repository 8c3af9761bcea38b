"""Real servers for the tests: MLflow's, in an environment of its own, and those of the test apps."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import mlflow_server

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 300.0
"""Seconds after which an expected event counts as missing, on a busy machine."""

MAX_PAUSE = 0.5
"""Maximum of seconds between two polls: a server that is polled all the time has none left for its work."""

PATIENT = {"MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "120", "GUNICORN_CMD_ARGS": "--graceful-timeout 120"}
"""For exits that should deliver all traces, on a machine that may be busy with other tests."""

IN_BACKGROUND = ["sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh"]
"""Starts a command like a script does with ``&``: SIGINT and SIGQUIT are ignored from the beginning."""

PORTS = range(10_000, 32_768)
"""Ports of test servers: below those that systems give to clients, and to servers that ask for any."""

T = TypeVar("T")
P = TypeVar("P", bound="Process")


def eventually(ask: Callable[[], T | None], what: str = "it", deadline: float = DEADLINE, pause: float = 0.05) -> T:
    """Poll, less and less often, until the answer is true; fail after the deadline."""
    end = time.monotonic() + deadline
    while not (answer := ask()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen in {deadline:g} s; the last answer was {answer!r}")
        time.sleep(pause)
        pause = max(pause, min(1.25 * pause, MAX_PAUSE))
    return answer


def free_port() -> int:
    """Return a free port on 127.0.0.1; the next call, in any process of this user, returns another one."""
    with Path(tempfile.gettempdir(), f"mlflow-middleware-tests-port-{os.getuid()}").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = int(file.read() or random.choice(PORTS))
        port = next(filter(_is_free, chain(PORTS[PORTS.index(last) + 1 :], PORTS)))
        file.truncate(0)
        file.write(str(port))
    return port


def _is_free(port: int) -> bool:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without variables of MLflow or the middleware, and with ``variables``.

    The platform of the tests is hidden, too; otherwise it would appear in the deployment's tags.
    """
    from mlflow_middleware._internal.platforms import PLATFORMS  # not by an older tree, which a benchmark measures

    signs = {platform.sign for platform in PLATFORMS.values()}
    theirs = ("MLFLOW_", "OTEL_", "DATABRICKS_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(theirs) and key not in signs}
    ours = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "GUNICORN_CMD_ARGS": "--graceful-timeout 10",
        "MLFLOW_MIDDLEWARE_INCLUDE": "head,unrouted",  # tests send such; for the default, see test_which_requests.py
    }
    return {**kept, **ours, **variables}


class Process:
    """A process in a group of its own, with its output in a file; it is killed when a ``with`` block of it is left.

    Args:
        command: Program and arguments.
        environment: All of its environment variables.
        log: The file of its output.
        cwd: Its working directory.
        pipe: Its standard input and output, instead of the file; see `tests.talking`.
        user: The user that it runs as, and the group; by default the current ones.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        cwd: Path = ROOT,
        pipe: int | None = None,
        user: str | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=cwd,
                stdin=pipe,
                stdout=pipe or output,
                stderr=output,
                start_new_session=True,
                user=user,
                group=user,
            )

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def output(self) -> str:
        """Return its output so far."""
        return self.log.read_text(errors="replace")

    def wait_until_up(self, url: str, certificate: Path | None = None) -> None:
        """Wait until it answers at this URL, with this certificate."""

        def is_up() -> bool:
            if self._popen.poll() is not None:
                raise AssertionError(f"the server ended with {self._popen.returncode}:\n{self.output()[-4000:]}")
            with contextlib.suppress(requests.RequestException):
                verify = str(certificate) if certificate else True
                return requests.get(url, timeout=5, verify=verify).status_code < 500
            return False

        eventually(is_up, f"{url} answering")

    def ended(self) -> bool:
        """Return whether it has ended."""
        return self._popen.poll() is not None

    def kill(self) -> None:
        """Kill it, and the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 60.0) -> int:
        """End it, and the processes that it started; return its exit code."""
        if self._popen.poll() is None:
            self._popen.send_signal(how)
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no exit within {timeout} s of {how.name}:\n{self.output()[-4000:]}") from None
        finally:
            self.kill()


class PostgreSQL:
    """A PostgreSQL cluster of our own, in a temporary folder that lives as long as this process.

    Debian has its programs in the package ``postgresql``. They refuse to run as root; then they run as ``postgres``.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the ancestor of all its processes; 0 while it is not running."""
        return self._process.pid if self._process else 0

    @property
    def data(self) -> Path:
        """The directory of its tables."""
        return Path(f"{self._folder}/data/base")

    @staticmethod
    def program(name: str) -> str | None:
        """Return the path of one of its programs; None if it is not installed."""
        return shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)

    def start(self) -> str:
        """Start it, on the same data as before; return the address of its database."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            atexit.register(self.stop)
            if os.geteuid() == 0:
                shutil.chown(self._folder, "postgres")
            made = self._run("initdb", "--auth=trust", "--username=mlflow", "--encoding=UTF8", "--locale=C")
            eventually(made.ended, "a new database")
        port = free_port()
        self._process = self._run("postgres", "-h", "127.0.0.1", "-p", str(port), "-c", "fsync=off", "-k", "")
        eventually(lambda: self._answers(port), "PostgreSQL answering")
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"

    def stop(self) -> None:
        """End it; the data stay."""
        if self._process is not None:
            self._process.stop(signal.SIGINT)  # which also ends its clients' transactions
            self._process = None

    def _run(self, name: str, *arguments: str) -> Process:
        assert self._folder
        command = [self.program(name) or name, "-D", f"{self._folder}/data", *arguments]
        user = "postgres" if os.geteuid() == 0 else None
        return Process(command, os.environ, self._folder / "log", self._folder, user=user)

    def _answers(self, port: int) -> bool:
        assert self._process
        if self._process.ended():
            raise AssertionError(f"PostgreSQL ended:\n{self._process.output()[-4000:]}")
        ready = [self.program("pg_isready") or "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        return subprocess.run(ready, check=False).returncode == 0


class MLflowServer:
    """A real MLflow tracking server.

    Args:
        folder: The directory of its database, artifacts and log.
        backend: Its backend store; SQLite in the folder by default.
        port: The port to listen on; a free port by default.
        certificate: A file with its certificate and key, for HTTPS.
        database: A database server that runs as long as it does, and is its backend store.
        workers: The number of its processes.
        variables: Additional or overriding environment variables.
    """

    def __init__(
        self,
        folder: Path,
        backend: str | None = None,
        port: int | None = None,
        certificate: Path | None = None,
        database: PostgreSQL | None = None,
        workers: int = 1,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.certificate = certificate
        self.uri = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._backend = backend or f"sqlite:///{folder}/mlflow.db"
        self._database = database
        self._workers = workers
        self._variables = variables or {}
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The process id of the ancestor of its workers; 0 while it is not running."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it, on the same port and data as before."""
        if self._database:
            self._backend = self._database.start()
        command = [
            *(
                str(mlflow_server.python()),
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.port),
            ),
            *("--workers", str(self._workers), "--backend-store-uri", self._backend),
            *("--default-artifact-root", str(self.folder / "artifacts")),
        ]
        if self.certificate:
            command += ["--uvicorn-opts", f"--ssl-certfile {self.certificate}"]
        environment = clean_environment(
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # six processes that we do not need
            MLFLOW_MODEL_CATALOG_URI="",  # installed prices, not those on the internet
        ) | dict(self._variables)
        self._process = Process(command, environment, self.folder / "mlflow.log", self.folder)
        try:
            self._process.wait_until_up(f"{self.uri}/health", self.certificate)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it; the data stay."""
        if self._process is not None:
            self._process.stop(signal.SIGKILL)
            self._process = None
        if self._database:
            self._database.stop()


def spooled(folder: Path) -> int:
    """Count the traces in complete files of a spool; the one being written has a dot before its name."""
    files = folder.glob("[!.]*.otlp")
    return sum(len(ExportTraceServiceRequest.FromString(file.read_bytes()).resource_spans) for file in files)


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    port: int | None = None,
    *,
    folder: Path = ROOT,
    fresh: bool = False,
) -> Iterator[tuple[Process, str]]:
    """Run an app's server process; yields it and its address, and ends it with the block.

    Args:
        command: Program and arguments; ``{port}`` in them is the port to listen on.
        environment: All of its environment variables.
        log: The file of its output.
        port: The port; a free one by default.
        folder: Its working directory.
        fresh: Yield as soon as it listens, before it has answered any request.
    """
    port = port or free_port()
    process = Process([part.replace("{port}", str(port)) for part in command], environment, log, folder)
    try:
        if fresh:
            eventually(lambda: _listens(port), "listening", pause=0.001)
        else:
            process.wait_until_up(f"http://127.0.0.1:{port}/health")
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.stop()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def command_for(app: str, port: int) -> list[str]:
    """Return the command that serves a test app."""
    uvicorn = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning"]
    hypercorn = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}"]
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    return {
        "asgi": [*uvicorn, "tests.apps.asgi_app:app"],
        "asgi-hypercorn": [*hypercorn, "tests.apps.asgi_app:app"],
        "wsgi": [*gunicorn, "--threads", "8", "tests.apps.wsgi_app:app"],
        "fastapi": [*uvicorn, "tests.apps.fastapi_app:app"],
        "flask": [*gunicorn, "--threads", "8", "tests.apps.flask_app:app"],
        "django-wsgi": [*gunicorn, "--threads", "8", "tests.apps.django_app:wsgi"],
        "django-asgi": [*uvicorn, "tests.apps.django_app:asgi"],
        "django-lifespan": [*uvicorn, "tests.apps.django_app:with_lifespan"],
        "uvicorn": [*uvicorn, "tests.apps.asgi_app:app"],
        "uvicorn-workers": [*uvicorn, "--workers", "2", "tests.apps.asgi_app:app"],
        "gunicorn-sync": [*gunicorn, "--workers", "2", "tests.apps.wsgi_app:app"],
        "gunicorn-gthread": [*gunicorn, "--workers", "2", "--threads", "4", "tests.apps.wsgi_app:app"],
        "gunicorn-uvicorn": [
            *(*gunicorn, "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"),
            "tests.apps.asgi_app:app",
        ],
        "gunicorn-preload": [*gunicorn, "--workers", "2", "--preload", "tests.apps.preloaded_app:app"],
    }[app]
