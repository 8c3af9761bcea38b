"""Failures of processes: how many of the last requests or tasks are stored for each kind of process and exit."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from tests.chaos.lab import Experiment, Lab, Way
from tests.faults import faulty
from tests.servers import ROOT, Process, eventually, free_port

Rows = dict[str, str]

COUNT = 20
PYTHON = [sys.executable, "-m"]
GEVENT = [*PYTHON, "gunicorn", "--bind", "127.0.0.1:{port}", "--timeout", "10", "--worker-class", "gevent", "--preload"]
UWSGI = [str(Path(sys.executable).with_name("uwsgi")), "--http-socket", "127.0.0.1:{port}", "--master", "--die-on-term"]
KILLED = {
    "waitress": [*PYTHON, "waitress", "--listen", "127.0.0.1:{port}", "tests.apps.wsgi_app:app"],
    "flask run": [*PYTHON, "flask", "--app", "tests.apps.flask_app:app", "run", "--port", "{port}"],
    "granian, WSGI": [*PYTHON, "granian", "--interface", "wsgi", "--port", "{port}", "tests.apps.wsgi_app:app"],
}
CHILDREN = {
    "multiprocessing, fork": ("process", "fork"),
    "ProcessPoolExecutor": ("executor", "fork"),
    "a terminated Pool": ("pool", "fork"),
}


def fresh_gevent(lab: Lab, way: Way) -> Rows:
    """9: eight requests reach a worker that gevent has just patched."""
    experiment = lab.experiment(way)
    answered = _served(lab, experiment, [*GEVENT, "tests.chaos.preloaded:app"], 8, fresh=True)
    title = "`gunicorn -k gevent --preload`, 8 requests find a fresh worker: answered"
    return {title: f"{answered} of 8", "… stored": _stored(experiment, 8)}


def uwsgi(lab: Lab, way: Way) -> Rows:
    """10: workers that are forked in C."""
    experiment = lab.experiment(way)
    _served(lab, experiment, [*UWSGI, "-p", "2", "-w", "tests.apps.wsgi_app:app"], COUNT)
    return {f"uWSGI, 2 workers, {COUNT} requests and its end: stored": _stored(experiment, COUNT)}


def children(lab: Lab, way: Way) -> Rows:
    """11: child processes that leave by os._exit."""
    rows = {}
    for name, arguments in CHILDREN.items():
        experiment = lab.experiment(way)
        subprocess.run(
            [*PYTHON, "tests.apps.children", *arguments, experiment.prefix],
            env=experiment.variables(),
            cwd=ROOT,
            check=True,
            timeout=120,
        )
        rows[f"5 tasks in children, {name}: stored"] = _stored(experiment, 5)
    return rows


def killed(lab: Lab, way: Way) -> Rows:
    """12: SIGTERM on a server that does not handle it."""
    rows = {}
    for name, command in KILLED.items():
        experiment = lab.experiment(way)
        _served(lab, experiment, command, COUNT)
        rows[f"SIGTERM right after {COUNT} requests, {name}: stored"] = _stored(experiment, COUNT)
    return rows


def across_an_ocean(lab: Lab, way: Way) -> Rows:
    """13: a tracking server that takes 100 ms for each request."""
    experiment = lab.experiment(way)
    command = [*PYTHON, "uvicorn", "--port", "{port}", "tests.apps.asgi_app:app"]
    with faulty(lab.server.uri) as slow:
        slow.delay = 0.1
        _served(lab, experiment, command, 200, uri=slow.uri)
    seen = experiment.settle(experiment.prefix, 200, 4, 60)
    title = "SIGTERM right after 200 requests, where each request to the server takes 100 ms: found"
    return {
        title: f"{seen.found} of 200",
        "… with their infos, too": f"{len(seen.stored)} of 200",
    }


def _served(
    lab: Lab, experiment: Experiment, command: list[str], count: int, fresh: bool = False, uri: str | None = None
) -> int:
    """Serve, send requests, and end it; return how many were answered."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = lab.folder / f"served-{experiment.prefix}.log"

    def answers(number: int) -> bool:
        headers = {"X-Request-ID": f"{experiment.prefix}-{number}"}
        try:
            return requests.get(f"{url}/status/200", headers=headers, timeout=20).ok
        except requests.RequestException:
            return False

    def listens() -> bool:
        return f":{port:04X} " in Path("/proc/net/tcp").read_text()

    with Process([part.format(port=port) for part in command], experiment.variables(uri), log) as process:
        if fresh:
            eventually(listens, "listening", pause=0.001)
        else:
            process.wait_until_up(f"{url}/health")
        with ThreadPoolExecutor(8) as pool:
            answered = sum(pool.map(answers, range(count)))
        if fresh:
            time.sleep(2)
        process.stop()
    return answered


def _stored(experiment: Experiment, count: int) -> str:
    return f"{len(experiment.settle(experiment.prefix, count, 4, 60).stored)} of {count}"
