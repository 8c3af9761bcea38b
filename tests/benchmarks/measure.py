"""One app in one process: its speed, its cost, and the traces that the server has of it."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import requests

from tests.benchmarks.spans import KINDS
from tests.servers import ROOT, MLflowServer, Process, clean_environment, free_port

WARM_UP = 1.0
"""Seconds of gentle traffic before the first measurement."""

IDLE = 1.0
"""Seconds over which an idle app's CPU is measured."""

QUIET = 15.0
"""Seconds without a new trace after which an exporter counts as done: OpenTelemetry's waits 5 s for a batch of
512, and the server needs seconds for one. With a shorter time, late traces would count as lost."""

QUIET_SAMPLED = 2.0
"""The limit for ways that lose most traces, with an exporter that waits only for a fraction of a second."""

UVICORN = ["-m", "uvicorn", "--log-level", "warning", "--no-access-log", "--port"]
GUNICORN = ["-m", "gunicorn", "--log-level", "warning", "--threads", "8", "--bind"]
HYPERCORN = ["-m", "hypercorn", "--log-level", "warning", "--bind"]
GUNICORN_ASGI = ["-m", "gunicorn", "--log-level", "warning", "-k", "uvicorn_worker.UvicornWorker", "--bind"]
APPS = {
    "FastAPI": ("fastapi_app", UVICORN),
    "Flask": ("flask_app", GUNICORN),
    "Django": ("django_app", GUNICORN),
    "streams-uvicorn": ("streams_app", UVICORN),
    "streams-hypercorn": ("streams_app", HYPERCORN),
    "streams-gunicorn": ("streams_app", GUNICORN_ASGI),
}
"""Name -> the app's module, and the server that runs it."""

OURS = {"ENVIRONMENT": "production", "APP_VERSION": "1.2.3", "DEPLOYMENT_ID": "d-7", "REGION": "eu-west-1"}
"""Deployment tags, set as in the hand-written way."""

WAYS: dict[str, dict[str, str]] = {
    "untraced": {},
    "mlflow": {},
    "nowhere": {"MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false"},
    "otel": {},
    "ours": OURS,
    "ours-without-bodies": {
        **OURS,
        "MLFLOW_MIDDLEWARE_CAPTURE_REQUEST_BODY": "false",
        "MLFLOW_MIDDLEWARE_CAPTURE_RESPONSE_BODY": "false",
    },
    "ours-sampled": {**OURS, "MLFLOW_MIDDLEWARE_SAMPLE_RATIO": "0.1"},
}
"""Way -> its environment variables."""


class Case(NamedTuple):
    """One way to trace an app, and one kind of request: a key of ``KINDS``."""

    way: str
    kind: str


UNTRACED = Case("untraced", "none")
"""An untraced app opens no child spans: it is the baseline of both kinds."""


def cases(ways: Sequence[str], kinds: Sequence[str]) -> list[Case]:
    """The cases; our own options are compared with each other on requests without child spans only."""
    plain = [Case(way, "none") for way in ways if "none" in kinds or way == "untraced"]
    several = [kind for kind in kinds if kind != "none"]
    return plain + [
        Case(way, kind) for kind in several for way in ways if way != "untraced" and not way.startswith("ours-")
    ]


@dataclass
class Figures:
    """The figures of one case in one round.

    Attributes:
        cpu: Microseconds of CPU of the app for one request, export included.
        p50: Milliseconds of latency at the gentle rate, median.
        p99: Its 99th percentile.
        p99_beside: That percentile while the server stores the traces of another app: the machine's share of it.
        throughput: Requests a second at full load.
        memory: Resident MiB afterwards.
        requests: The number of answered requests.
        stored: The number of their traces on the server.
        drained: Seconds until the exporter was done.
    """

    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    p99_beside: float = 0.0
    throughput: float = 0.0
    memory: float = 0.0
    requests: int = 0
    stored: int = 0
    drained: float = 0.0

    @classmethod
    def of(cls, turns: Sequence[Turn], missing: int) -> Figures:
        """Sum up all turns of one app, with the number of requests missing on the server after the last turn."""
        latencies = [latency for turn in turns for latency in turn.latencies]
        return cls(
            cpu=1e6 * sum(turn.cpu for turn in turns) / len(latencies),
            p50=statistics.median(latencies),
            p99=_p99(latencies),
            requests=len(latencies),
            stored=max(0, len(latencies) - missing),
            drained=sum(turn.drained for turn in turns),
        )

    def without_idle(self, share: float) -> None:
        """Subtract the CPU that the app uses anyway while its exporter works."""
        self.cpu -= 1e6 * share * self.drained / self.requests


@dataclass
class Turn:
    """Some seconds of traffic, and its outcome.

    Attributes:
        cpu: Seconds of CPU of all processes of the app, until its exporter was done.
        latencies: Milliseconds of each request.
        drained: Seconds until the exporter was done.
    """

    cpu: float
    latencies: list[float]
    drained: float


class Subject:
    """A running app, traced in one way into an experiment of its own."""

    def __init__(
        self, framework: str, way: str, server: MLflowServer, folder: Path, *, kind: str = "none", **variables: str
    ) -> None:
        self._server = server
        self._is_stored = way not in ("untraced", "nowhere")
        self._quiet = QUIET_SAMPLED if way == "ours-sampled" else QUIET
        name = f"{framework}-{way}-{kind}-{time.time_ns()}"
        url = f"{server.uri}/api/2.0/mlflow/experiments/create"
        self._experiment = str(requests.post(url, json={"name": name}, timeout=60).json()["experiment_id"])
        self.port = free_port()
        module, serve = APPS[framework]
        where = str(self.port) if serve is UVICORN else f"127.0.0.1:{self.port}"
        environment = clean_environment(
            MLFLOW_TRACKING_URI=server.uri, WAY=way, EXPERIMENT=name, EXPERIMENT_ID=self._experiment, **WAYS[way]
        )
        if way.startswith("ours"):
            environment["MLFLOW_EXPERIMENT_NAME"] = name
        self._process = Process(
            [sys.executable, *serve, where, f"tests.benchmarks.{module}:app"],
            {**environment, "CHILDREN": str(KINDS[kind]), **variables},
            folder / f"{name}.log",
        )
        try:
            self._process.wait_until_up(f"http://127.0.0.1:{self.port}/health")
        except BaseException:
            self.stop()
            raise
        self.requests = self.missing = 0

    def load(self, *, seconds: float = 0.0, requests: float = 0, rate: float = 0.0) -> tuple[float, list[float]]:
        """Send requests for a time, or a number of them; return the total seconds and the latencies."""
        asked = {"seconds": seconds, "requests": requests, "rate": rate}
        options = [f"--{name}={value}" for name, value in asked.items() if value]
        count, took, latencies = run_module(
            "tests.benchmarks.load", str(self.port), f"--first={self.requests}", *options
        )
        self.requests += count
        return took, latencies

    def turn(self, seconds: float, rate: float = 0.0, patience: float = 60.0) -> Turn:
        """Send requests for a while, and wait until the exporter is done."""
        before = self.cpu()
        _, latencies = self.load(seconds=seconds, rate=rate)
        loaded = time.monotonic()
        self.missing = self.requests - self.drain(patience, self.requests)
        return Turn(self.cpu() - before, latencies, time.monotonic() - loaded)

    def cpu(self) -> float:
        """Return the seconds of CPU that its processes have used."""
        return cpu_of(self._pids())

    def idle_cpu(self) -> float:
        """Return the share of a CPU that it uses while idle."""
        before, began = self.cpu(), time.monotonic()
        time.sleep(IDLE)
        return (self.cpu() - before) / (time.monotonic() - began)

    def memory(self) -> float:
        """Return the MiB that its processes have resident."""
        return self._status("VmRSS")

    def peak_memory(self) -> float:
        """Return the peak of the MiB that its processes had resident."""
        return self._status("VmHWM")

    def traces(self) -> Iterator[dict[str, Any]]:
        """Return the info of each trace on the server; called rarely, as it costs the server time."""
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self._experiment}}
        query: dict[str, object] = {"locations": [location], "max_results": 500}
        while True:
            answer = requests.post(f"{self._server.uri}/api/3.0/mlflow/traces/search", json=query, timeout=120).json()
            yield from answer.get("traces", [])
            if not answer.get("next_page_token"):
                return
            query["page_token"] = answer["next_page_token"]

    def stored(self) -> int:
        """Return the number of traces on the server."""
        return sum(1 for _ in self.traces())

    def drain(self, limit: float, expected: int) -> int:
        """Wait until its exporter is done; return the number of traces stored."""
        if not self._is_stored:
            return 0
        end = time.monotonic() + limit
        before, changed = -1, time.monotonic()
        while (now := time.monotonic()) < end and now < changed + self._quiet and before < expected:
            stored = self.stored()
            if stored != before:
                before, changed = stored, now
            time.sleep(0.5 + stored / 2000)
        return before

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()

    def exit(self) -> str:
        """End it as a supervisor does; return its output."""
        self._process.stop(signal.SIGTERM, 90)
        return self._process.output()

    def _status(self, field: str) -> float:
        """https://man7.org/linux/man-pages/man5/proc_pid_status.5.html"""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self._pids()]
        return sum(int(match[1]) for text in texts if (match := re.search(rf"{field}:\s*(\d+)", text))) / 1024

    def _pids(self) -> list[int]:
        return [
            int(path.name) for path in Path("/proc").glob("[0-9]*") if _session(int(path.name)) == self._process.pid
        ]


def run_module(*command: str) -> Any:
    """Run a Python module to its end; return the JSON that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env=clean_environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )
    return json.loads(done.stdout)


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents = {pid: _parent(pid) for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*"))}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def cpu_of_tree(pid: int) -> float:
    """Return the seconds of CPU that a process and all its descendants have used, ended ones included."""
    pids = descendants(pid)
    ended = sum(sum(map(int, _stat(each)[13:15])) for each in pids)
    return cpu_of(pids) + ended / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, from its third field on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def cpu_of(pids: Sequence[int]) -> float:
    """Return the seconds of CPU that processes have used, in nanosecond resolution, ended threads included."""
    return sum(time.clock_gettime(_cpu_clock(pid)) for pid in pids)


def _cpu_clock(pid: int) -> int:
    """Do what clock_getcpuclockid(3) does, which Python lacks."""
    return (~pid << 3) | 2


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def measure(
    framework: str,
    cases: Sequence[Case],
    server: MLflowServer,
    folder: Path,
    *,
    number: int,
    rate: float,
    slices: int,
    gentle: float,
    saturated: float,
) -> dict[Case, Figures]:
    """Run one round: an app for each case, under gentle load in turns, and then each under full load.

    The turns are short, so that a machine that changes its speed does so for all; and each waits until the previous one
    is stored, so that none is measured while the server works for another.
    """
    subjects: dict[Case, Subject] = {}
    try:
        for case in cases:
            subjects[case] = Subject(framework, case.way, server, folder, kind=case.kind)
            subjects[case].load(seconds=WARM_UP, rate=rate)
        for subject in subjects.values():  # most of them are done by the time of their turn
            subject.drain(60, subject.requests)
        turns = []
        for turn in range(number, number + slices):
            turns += [(case, subjects[case].turn(gentle, rate)) for case in _from(turn, cases)]
        found = {}
        for case, subject in subjects.items():
            found[case] = Figures.of([turn for each, turn in turns if each == case], subject.missing)
            found[case].without_idle(subject.idle_cpu())
        if {UNTRACED, Case("ours", "none")} <= subjects.keys():
            found[UNTRACED].p99_beside = _beside(subjects[UNTRACED], subjects[Case("ours", "none")], gentle, rate)
        for case in _from(number, cases):
            subject = subjects[case]
            before = subject.requests
            took, _ = subject.load(seconds=saturated)
            found[case].throughput = (subject.requests - before) / took
            found[case].memory = subject.memory()
            subject.stop()  # its remaining traces must not load the others
        return found
    finally:
        for subject in subjects.values():
            subject.stop()


def _beside(plain: Subject, traced: Subject, seconds: float, rate: float) -> float:
    """Measure the untraced app's latency while the server stores the traces of another app."""
    traced.load(seconds=seconds, rate=rate)  # two thirds of which are still to be stored
    _, latencies = plain.load(seconds=seconds, rate=rate)
    traced.drain(60, traced.requests)
    return _p99(latencies)


def _from(number: int, cases: Sequence[Case]) -> list[Case]:
    """Rotate the cases, so that another one is first in each round."""
    first = number % len(cases)
    return [*cases[first:], *cases[:first]]


def _p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


def caught_up(framework: str, case: Case, server: MLflowServer, folder: Path, *, saturated: float) -> Figures:
    """Run one app at full load until nothing more reaches the server; return its cost and its stored traces."""
    subject = Subject(framework, case.way, server, folder, kind=case.kind)
    try:
        subject.turn(WARM_UP, 50)
        figures = Figures.of([subject.turn(saturated, patience=900)], subject.missing)
        figures.without_idle(subject.idle_cpu())
        return figures
    finally:
        subject.stop()
