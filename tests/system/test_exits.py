"""The traces that an exit or a server's shutdown delivers in its time; it takes no time if that cannot help."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import AppRunner, Traces
from tests.faults import FaultyServer, faulty
from tests.servers import PATIENT, ROOT, MLflowServer, clean_environment, free_port

LIFESPANS = 5
"""How often the app of `tests.apps.lifespans` is started and shut down."""


@pytest.fixture
def slow(server: MLflowServer) -> Iterator[FaultyServer]:
    """The MLflow server with the latency of another continent."""
    with faulty(server.uri) as running:
        running.delay = 0.1
        yield running


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn-sync"])
def test_sigterm_makes_all_readable_at_100_ms_per_request(
    run_app: AppRunner, slow: FaultyServer, server: MLflowServer, kind: str
) -> None:
    """Within the default time, right after 200 requests; each is found by session, user and request id."""
    name = uuid.uuid4().hex
    app = run_app(kind, None, ONCE=name, MLFLOW_TRACKING_URI=slow.uri)
    with requests.Session() as session:
        for number in range(200):
            headers = {"X-Request-ID": f"{name}-{number}", "X-Session-ID": f"s-{name}", "X-User-ID": f"u-{name}"}
            assert session.get(f"{app.url}/status/200", headers=headers, timeout=60).status_code == 200

    app.process.stop(signal.SIGTERM, timeout=60)

    stored = Traces(server.uri, app.traces.experiment)
    for query in (
        f"tags.client_request_id LIKE '{name}-%'",
        f"tags.`mlflow.trace.session` = 's-{name}'",
        f"tags.`mlflow.trace.user` = 'u-{name}'",
        f"metadata.`mlflow.trace.session` = 's-{name}'",
        f"metadata.`mlflow.trace.user` = 'u-{name}'",
    ):
        assert len(stored.search(query)) == 200, query
    found = stored.search(f"tags.client_request_id LIKE '{name}-%'")
    assert {len(trace.data.spans) for trace in found} == {1}
    assert {trace.info.state.name for trace in found} == {"OK"}
    assert {trace.info.tags["environment"] for trace in found} == {"production"}


def lifespans(**variables: str) -> subprocess.CompletedProcess[str]:
    """Start an app, send requests and shut it down repeatedly in one process, as a suite with test clients does."""
    return subprocess.run(
        [sys.executable, "-m", "tests.apps.lifespans", str(LIFESPANS)],
        env=clean_environment(MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="30", **variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.mark.parametrize("where", ["unset", "nobody-listens", "no-such-host", "wrong-server"])
def test_a_shutdown_does_not_wait_if_that_cannot_help(where: str, slow: FaultyServer) -> None:
    """Neither a lifespan's nor the exit's, though they might take half a minute each. Their log lines are accurate."""
    slow.delay, slow.mode = 0.0, "login"
    uris = {
        "unset": "",
        "nobody-listens": f"http://127.0.0.1:{free_port()}",
        "no-such-host": "http://nowhere.invalid:5000",
        "wrong-server": slow.uri,
    }
    done = lifespans(MLFLOW_TRACKING_URI=uris[where])

    assert max(float(seconds) for seconds in re.findall(r"took (\S+) s", done.stdout)) < 30
    assert done.stdout.splitlines()[-1] == f"{LIFESPANS} waiting"
    printed = re.findall(r"at (\w+): (.*)", done.stderr)
    assert printed == [
        *(("shutdown", f"0 delivered, 0 spooled, {count} waiting, 0 dropped") for count in range(1, LIFESPANS + 1)),
        (
            "exit",
            f"0 delivered, 0 spooled, 0 waiting, {LIFESPANS} dropped ({LIFESPANS} not delivered before the exit)",
        ),
    ]


def test_a_shutdown_waits_for_a_reachable_server(server: MLflowServer) -> None:
    """Each shutdown delivers the pending traces; the exit has nothing to add."""
    name = uuid.uuid4().hex
    done = lifespans(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=name)

    assert len(Traces(server.uri, name).search()) == LIFESPANS
    assert re.findall(r"at (\w+): (\d+) delivered, 0 spooled, 0 waiting, 0 dropped", done.stderr) == [
        ("shutdown", str(count)) for count in range(1, LIFESPANS + 1)
    ]


def test_a_shutdown_waits_for_a_busy_server(slow: FaultyServer, server: MLflowServer) -> None:
    """A server that asks for patience is tried again."""
    name = uuid.uuid4().hex
    slow.delay, slow.busy = 0.0, 3
    lifespans(MLFLOW_TRACKING_URI=slow.uri, MLFLOW_EXPERIMENT_NAME=name)

    assert slow.failed == 3
    assert len(Traces(server.uri, name).search()) == LIFESPANS


def frozen(how: str, **variables: str) -> str:
    """Send requests to an app and shut it down while time is frozen; return the output."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.frozen", how],
        env=clean_environment(**variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("how", ["time-machine", "freezegun", "patched"])
def test_no_wait_is_endless_while_time_is_frozen(slow: FaultyServer, how: str, tmp_path: Path) -> None:
    """As in a test that freezes the clocks: neither for a ``mask`` that hangs nor for a busy server."""
    slow.delay, slow.busy = 0.0, 1_000_000
    variables = {"MLFLOW_TRACKING_URI": slow.uri, "MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "1"}

    assert "took" in frozen(how, **variables, MLFLOW_MIDDLEWARE_MASK="tests.apps.frozen.hang")
    assert "1 spooled" in frozen(how, **variables, MLFLOW_MIDDLEWARE_SPOOL_DIR=str(tmp_path))


@pytest.mark.parametrize("how", ["time-machine", "freezegun", "patched"])
def test_traces_are_delivered_while_time_is_frozen(server: MLflowServer, how: str) -> None:
    """The lifespan's end does not give up, either."""
    name = uuid.uuid4().hex
    output = frozen(how, MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=name, **PATIENT)

    assert output.startswith("1 delivered")
    assert len(Traces(server.uri, name).search()) == 1


@pytest.mark.parametrize("when", ["threads", "atexit"])
def test_a_signal_when_the_main_thread_is_over(server: MLflowServer, when: str) -> None:
    """From Python 3.12 on, no thread can start then: while others of the app go on, and while exit handlers run."""
    name = uuid.uuid4().hex
    script = """
import atexit, os, signal, sys, threading, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
def end():
    if threading.current_thread() is not threading.main_thread():
        threading.main_thread().join()
    with mlflow.start_span("the last request"):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(60)
if sys.argv[1] == "threads":
    threading.Thread(target=end).start()
else:
    atexit.register(end)
"""
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=name, **PATIENT)
    ended = subprocess.run([sys.executable, "-c", script, when], env=environment, cwd=ROOT, timeout=120, check=False)

    assert ended.returncode == -signal.SIGTERM
    assert len(Traces(server.uri, name).search()) == 1


def test_a_process_ends_though_its_main_thread_stays_in_c_code() -> None:
    """In a deadlock of a native library, begun after the signal, no handler in Python would ever run."""
    script = """
import ctypes, os, signal, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
with mlflow.start_span("the last request"):
    pass
mutex = ctypes.create_string_buffer(64)
lock = ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
os.kill(os.getpid(), signal.SIGTERM)
lock(mutex)
"""
    environment = clean_environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    ended = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, timeout=60, check=False)

    assert ended.returncode == -signal.SIGTERM


def test_a_mask_that_never_returns_delays_no_exit(server: MLflowServer) -> None:
    """At most for ``shutdown_timeout``: it is the app's code, and runs where traces are delivered."""
    script = """
import logging, threading
from wsgiref.util import setup_testing_defaults
from mlflow_middleware.wsgi import TraceMiddleware
logging.basicConfig()
masked = threading.Event()
def mask(exchange):
    masked.set()
    threading.Event().wait()
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"ok"]
environ = {}
setup_testing_defaults(environ)
TraceMiddleware(app, mask=mask, shutdown_timeout=1)(environ, lambda *_: print)
masked.wait()
"""
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=90, check=True)

    assert "at exit: 0 delivered, 0 spooled, 1 waiting, 0 dropped" in done.stderr


def test_an_exit_after_the_streams_are_closed_prints_no_traceback(tmp_path: Path) -> None:
    """As with pytest's capture, which the app's logging writes to. A handler that can still write gets the line."""
    script = """
import io, logging, sys
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
closed = io.StringIO()
logging.basicConfig(level=logging.INFO, handlers=[logging.StreamHandler(closed), logging.FileHandler(sys.argv[1])])
delivery.start(Settings.load())
import mlflow
with mlflow.start_span("the last request"):
    pass
closed.close()
"""
    log = tmp_path / "log"
    environment = clean_environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    done = subprocess.run(
        [sys.executable, "-c", script, str(log)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert done.stderr == ""
    assert "at exit: 0 delivered" in log.read_text()
