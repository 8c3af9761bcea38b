"""Jobs of real workers: `tox run -e jobs`. A request enqueues them through a real Redis; both traces are read back."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from mlflow.entities import Trace

from tests.conftest import Traces
from tests.hosts.test_contract import is_left
from tests.servers import PATIENT, MLflowServer, Process, clean_environment, command_for, eventually, free_port, serving

CELERY = ("celery", "-A", "examples.celery_jobs:queue", "worker", "-c", "2", "--without-gossip", "-l", "INFO", "-P")
WORKERS = {
    "celery prefork": (*CELERY, "prefork"),
    "celery prefork, a task each": (*CELERY, "prefork", "--max-tasks-per-child", "1"),
    "celery threads": (*CELERY, "threads"),
    "celery solo": (*CELERY, "solo"),
    "rq": ("rq.cli", "worker"),
    "rq spawn": ("rq.cli", "worker", "--worker-class", "rq.worker.SpawnWorker"),
    "rq simple": ("rq.cli", "worker", "--worker-class", "rq.worker.SimpleWorker"),
    "arq": ("arq", "examples.arq_jobs.WorkerSettings"),
    "dramatiq": ("dramatiq", "examples.dramatiq_jobs", "--processes", "2", "--threads", "2"),
}
"""Worker -> the module that runs it, and its arguments."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of our own; yields its address."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed (on Debian, it is the package redis-server)")
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    command = [program, "--port", str(port), "--dir", str(folder), "--save", "", "--bind", "127.0.0.1"]
    with Process(command, os.environ, folder / "log") as process:
        eventually(lambda: "Ready to accept connections" in process.output(), "Redis")
        yield f"redis://127.0.0.1:{port}"


@dataclass
class Queue:
    """An app that enqueues jobs, and a worker that runs them."""

    url: str
    worker: Process
    traces: Traces

    def ask(self, text: str) -> str:
        """Enqueue a job; return the request's id."""
        request_id = uuid.uuid4().hex
        headers = {"X-Request-ID": request_id, "X-Session-ID": "s-1", "X-User-ID": "jane"}
        answer = requests.post(f"{self.url}/summaries", params={"text": text}, headers=headers, timeout=60)
        assert answer.status_code == 200
        return request_id

    def both(self, request_id: str) -> tuple[Trace, Trace]:
        """The trace of a request, and that of its job."""
        query = f"tags.client_request_id = '{request_id}'"
        found = {trace.info.tags["mlflow.traceName"]: trace for trace in self.traces.wait(query, 2)}
        return found["POST /summaries"], found["summarize"]


@contextmanager
def running(name: str, server: MLflowServer, redis: str, folder: Path) -> Iterator[Queue]:
    """Run a queue of ``examples/``."""
    kind, port, experiment = name.split()[0], free_port(), f"jobs-{uuid.uuid4().hex}"
    number = list(WORKERS).index(name)  # each has a database of its own
    variables = clean_environment(
        MLFLOW_TRACKING_URI=server.uri,
        MLFLOW_EXPERIMENT_NAME=experiment,
        BROKER=f"{redis}/{number}",
        RQ_REDIS_URL=f"{redis}/{number}",
        **PATIENT,
    )
    web = [*command_for("fastapi", port)[:-1], f"examples.{kind}_jobs:web"]
    with (
        Process([sys.executable, "-m", *WORKERS[name]], variables, folder / "worker") as worker,
        serving(web, variables, folder / "web", port) as (_, url),
    ):
        yield Queue(url, worker, Traces(server.uri, experiment))


def has_done(output: str, count: int) -> bool:
    """Return whether a worker has logged the end of a job this many times, each worker in its own words."""
    return (
        max(output.count("Job OK"), output.count("succeeded in"), output.count("● "), output.count("RUM") * 2) >= count
    )


@pytest.mark.parametrize("name", WORKERS)
def test_a_job_has_its_requests_identity(name: str, server: MLflowServer, redis: str, tmp_path: Path) -> None:
    """Its trace has the session, user and request id, and a link to the request's span; and so has that of the last
    job before the worker's end. No process is left."""
    if importlib.util.find_spec(name.split()[0]) is None:
        pytest.skip(f"{name} is not installed: tox run -e jobs")
    with running(name, server, redis, tmp_path) as queue:
        asked, job = queue.both(queue.ask("tea"))
        last = queue.ask("rum")
        if name == "rq spawn":  # its children log nothing
            queue.both(last)
        else:
            eventually(lambda: has_done(queue.worker.output(), 2), "the last job")
        os.kill(queue.worker.pid, signal.SIGTERM)
        eventually(queue.worker.ended, "the end of the worker")
        queue.both(last)
        assert not is_left(queue.worker)

    (root,) = [span for span in job.data.spans if not span.parent_id]
    (root_of_request,) = [span for span in asked.data.spans if not span.parent_id]
    assert {span.name: span.parent_id for span in job.data.spans} == {"summarize": None, "model": root.span_id}
    assert [(link.trace_id, link.span_id) for link in root.links] == [(asked.info.trace_id, root_of_request.span_id)]
    assert root.inputs == {"text": "tea"}
    assert root.outputs == (None if name == "dramatiq" else "TEA")
    for key in ("mlflow.trace.session", "mlflow.trace.user"):
        assert job.info.trace_metadata[key] == asked.info.trace_metadata[key]
    assert str(job.info.state) == "OK"
