"""One app in one process: how fast it answers, what that costs it, and what the server has of it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.servers import ROOT, MLflowServer, Process, clean_environment, free_port

WARM_UP = 2.0
"""Seconds of gentle traffic before anything is measured."""

QUIET = 6.0
"""Seconds without a new trace after which an exporter counts as done."""

COMMANDS = {
    "FastAPI": ["-m", "uvicorn", "--log-level", "warning", "--no-access-log", "tests.benchmarks.fastapi_app:app"],
    "Flask": ["-m", "gunicorn", "--threads", "8", "--log-level", "warning", "tests.benchmarks.flask_app:app"],
    "Django": ["-m", "gunicorn", "--threads", "8", "--log-level", "warning", "tests.benchmarks.django_app:app"],
}

OURS = {"ENVIRONMENT": "production", "APP_VERSION": "1.2.3", "DEPLOYMENT_ID": "d-7", "REGION": "eu-west-1"}
"""Deployment tags, as the hand-written way has them."""

WAYS: dict[str, dict[str, str]] = {
    "untraced": {},
    "mlflow": {},
    "otel": {},
    "ours": OURS,
    "ours-sampled": {**OURS, "MLFLOW_MIDDLEWARE_SAMPLE_RATIO": "0.1"},
}
"""Way -> its environment variables."""


@dataclass
class Figures:
    """What was measured of one app.

    Attributes:
        cpu: Microseconds of CPU for each request, of all processes of the app, until its exporter was done.
        p50: Milliseconds, at the gentle rate.
        p99: The same.
        throughput: Requests a second, saturated.
        memory: MiB resident, after it.
        requests: How many were answered in all.
        stored: How many of them the server has as a trace.
    """

    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    throughput: float = 0.0
    memory: float = 0.0
    requests: int = 0
    stored: int = 0


class Subject:
    """A running app, traced in one way into an experiment of its own."""

    def __init__(self, framework: str, way: str, server: MLflowServer, folder: Path) -> None:
        self._server = server
        name = f"{framework}-{way}-{time.time_ns()}"
        url = f"{server.uri}/api/2.0/mlflow/experiments/create"
        self._experiment = str(requests.post(url, json={"name": name}, timeout=60).json()["experiment_id"])
        self._port = free_port()
        bind = ["--port", str(self._port)] if framework == "FastAPI" else ["--bind", f"127.0.0.1:{self._port}"]
        module, server_name, *rest = COMMANDS[framework]
        environment = clean_environment(
            MLFLOW_TRACKING_URI=server.uri, WAY=way, EXPERIMENT=name, EXPERIMENT_ID=self._experiment, **WAYS[way]
        )
        if way.startswith("ours"):
            environment["MLFLOW_EXPERIMENT_NAME"] = name
        self._process = Process(
            [sys.executable, module, server_name, *bind, *rest], environment, folder / f"{name}.log"
        )
        self._process.wait_until_up(f"http://127.0.0.1:{self._port}/health")
        self.requests = 0

    def load(self, seconds: float, rate: float = 0.0) -> tuple[float, list[float]]:
        """Ask it; returns the seconds that it took, and the latencies."""
        command = [sys.executable, "-m", "tests.benchmarks.load", str(self._port), str(seconds)]
        command += [str(rate)] if rate else []
        done = subprocess.run(
            command, env=clean_environment(), cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60, check=True
        )
        count, took, latencies = json.loads(done.stdout)
        self.requests += count
        return took, latencies

    def cpu(self) -> float:
        """Seconds of CPU that its processes have used, by the operating system's account."""
        ticks = sum(int(field) for pid in self._pids() for field in _stat(pid)[11:13])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """MiB that its processes have resident."""
        pages = sum(int(_stat(pid)[21]) for pid in self._pids())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2

    def stored(self) -> int:
        """Traces on the server; asked rarely, for it costs the server time."""
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self._experiment}}
        query: dict[str, object] = {"locations": [location], "max_results": 500}
        count = 0
        while True:
            answer = requests.post(f"{self._server.uri}/api/3.0/mlflow/traces/search", json=query, timeout=120).json()
            count += len(answer.get("traces", []))
            if not answer.get("next_page_token"):
                return count
            query["page_token"] = answer["next_page_token"]

    def drain(self, limit: float, expected: int) -> int:
        """Wait until its exporter is done; returns the traces stored."""
        end = time.monotonic() + limit
        before, changed = -1, time.monotonic()
        while (now := time.monotonic()) < end and now < changed + QUIET and before < expected:
            stored = self.stored()
            if stored != before:
                before, changed = stored, now
            time.sleep(0.5 + stored / 2000)
        return before

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()

    def _pids(self) -> list[int]:
        return [
            int(path.name) for path in Path("/proc").glob("[0-9]*") if _session(int(path.name)) == self._process.pid
        ]


def _stat(pid: int) -> list[str]:
    """https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _session(pid: int) -> int:
    try:
        return int(_stat(pid)[3])
    except OSError:
        return 0


def measure(
    framework: str, way: str, server: MLflowServer, folder: Path, *, rate: float, gentle: float, saturated: float
) -> Figures:
    """Run one app, gently and then saturated."""
    subject = Subject(framework, way, server, folder)
    try:
        subject.load(WARM_UP, rate)
        if way != "untraced":
            subject.drain(60, subject.requests)
        figures = Figures()
        before, cpu = subject.requests, subject.cpu()
        _, latencies = subject.load(gentle, rate)
        if way != "untraced":
            subject.drain(60, subject.requests)
        figures.cpu = 1e6 * (subject.cpu() - cpu) / (subject.requests - before)
        figures.p50, figures.p99 = statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
        before = subject.requests
        took, _ = subject.load(saturated)
        figures.throughput = (subject.requests - before) / took
        figures.memory = subject.memory()
        return figures
    finally:
        subject.stop()


def caught_up(framework: str, way: str, server: MLflowServer, folder: Path, *, saturated: float) -> Figures:
    """Run one app saturated, and count what the server has of it once nothing more comes."""
    subject = Subject(framework, way, server, folder)
    try:
        subject.load(WARM_UP, 50)
        subject.load(saturated)
        stored = subject.drain(900, subject.requests)
        return Figures(requests=subject.requests, stored=stored)
    finally:
        subject.stop()
