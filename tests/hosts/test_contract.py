"""The contract that holds under each server: `tox run -e servers`.

Answers are the same as without the middleware; all traces are stored while the server runs, and all after its ordinary
end; no process is left.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.conftest import Traces
from tests.hosts.known import ANSWERS, ENDED, GONE, HOSTS, RUNNING, Host
from tests.raw import ADDED
from tests.servers import DEADLINE, PATIENT, MLflowServer, Process, clean_environment, eventually, serving

COUNT = 20
"""The number of requests whose traces are awaited while it runs, and of those right before its end."""

SETTLED = 20.0
"""Seconds after which a missing trace counts as lost."""

PATHS = ("/status/200", "/status/404", "/status/204", "/stream", "/nowhere")


@dataclass
class Life:
    """The outcome of one run of a server.

    Attributes:
        answers: Its answers, with the middleware and without.
        running: The number of traces that were stored while it ran.
        ended: The number of stored traces of requests right before its end.
        left: Whether one of its processes was left afterwards.
        log: Its output.
    """

    answers: tuple[list[object], list[object]]
    running: int
    ended: int
    left: bool
    log: str


def stored(traces: Traces, prefix: str, count: int) -> int:
    """Count the readable traces, once all are there or nothing more can come."""
    end = time.monotonic() + SETTLED
    query = f"tags.client_request_id LIKE '{prefix}-%' AND span.name LIKE '%'"
    while (found := len(traces.search(query, spans=False))) < count and time.monotonic() < end:
        time.sleep(0.5)
    return found


def ask(url: str, prefix: str) -> None:
    """Send requests, four at a time; all must be answered."""

    def one(number: int) -> int:
        headers = {"X-Request-ID": f"{prefix}-{number}", "Connection": "close"}
        return requests.get(f"{url}/status/200", headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(COUNT))) == {200}


def answers(url: str) -> list[object]:
    """Return its answer without our headers and the time."""
    found: list[object] = []
    for path in PATHS:
        answer = requests.get(url + path, headers={"Connection": "close"}, timeout=60)  # uWSGI resets open ones
        headers = {name.lower(): value for name, value in answer.headers.items()}
        ours = {name for name in headers if f"{name}:".encode() in ADDED}
        found.append((path, answer.status_code, answer.content, {n: headers[n] for n in headers.keys() - ours}))
    return found


@contextmanager
def served(host: Host, log: Path, **variables: str) -> Iterator[tuple[Process, str]]:
    """Run the server; yields its address."""
    environment = clean_environment(**{**PATIENT, **host.variables, **variables})
    with serving(host.command, environment, log) as (process, url):
        try:
            yield process, url
        finally:
            process.kill()


def live(host: Host, server: MLflowServer, folder: Path) -> Life:
    """Start it, send requests, end it."""
    name, log = uuid.uuid4().hex, folder / "log"
    with served(host, folder / "log-without", MLFLOW_MIDDLEWARE_ENABLED="false") as (_, url):
        without = answers(url)
    traces = Traces(server.uri, name)
    with served(host, log, MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=name) as (process, url):
        answered = answers(url)
        ask(url, f"{name}-running")
        running = stored(traces, f"{name}-running", COUNT)
        ask(url, f"{name}-ended")
        os.kill(process.pid, signal.SIGTERM)
        eventually(process.ended, "its end", DEADLINE)
        left = is_left(process)
    ended = stored(traces, f"{name}-ended", COUNT)
    return Life((answered, without), running, ended, left, log.read_text(errors="replace"))


def is_left(process: Process) -> bool:
    """Return whether a process of its group is left; a zombie does not count."""
    for _ in range(50):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            shown = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
            if any(line.split()[0] == str(process.pid) and "Z" not in line.split()[1] for line in shown.splitlines()):
                time.sleep(0.1)
                continue
        return False
    return True


LIVES: dict[str, Life] = {}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in HOSTS])
def name(request: pytest.FixtureRequest) -> str:
    """Each server in turn."""
    found: str = request.param
    if HOSTS[found].needs and importlib.util.find_spec(HOSTS[found].needs) is None:
        pytest.skip(f"{HOSTS[found].needs} is not installed")
    return found


@pytest.fixture(params=[ANSWERS, RUNNING, ENDED, GONE])
def fact(request: pytest.FixtureRequest, name: str) -> str:
    """Each part of the contract in turn."""
    found: str = request.param
    if why := HOSTS[name].missing.get(found):
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))
    return found


def test_the_contract_holds(name: str, fact: str, server: MLflowServer, tmp_path: Path) -> None:
    """One run of each server; each part of the contract is a test of its own."""
    life = LIVES.get(name) or LIVES.setdefault(name, live(HOSTS[name], server, tmp_path))
    if fact == ANSWERS:
        assert life.answers[0] == life.answers[1]
    elif fact == RUNNING:
        assert life.running == COUNT, life.log[-3000:]
    elif fact == ENDED:
        assert life.ended == COUNT, life.log[-3000:]
    else:
        assert not life.left
