"""The contract without a listening server: tasks, children of a process, and functions."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.conftest import Traces
from tests.hosts.test_contract import COUNT, is_left, stored
from tests.servers import DEADLINE, PATIENT, ROOT, MLflowServer, Process, clean_environment, eventually


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def environment(server: MLflowServer, name: str, **variables: str) -> dict[str, str]:
    where = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": name}
    return clean_environment(**{**where, **PATIENT, **variables})


def run(variables: dict[str, str], *command: str) -> str:
    """Run one of our modules to its end; return its output."""
    full = [sys.executable, "-m", *command]
    done = subprocess.run(full, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@needs("celery")
@pytest.mark.parametrize(
    ("pool", "more"),
    [
        ("prefork", ()),
        ("prefork", ("--max-tasks-per-child", "1")),
        ("threads", ()),
        ("solo", ()),
    ],
)
def test_celery(server: MLflowServer, tmp_path: Path, pool: str, more: tuple[str, ...]) -> None:
    """Tasks' traces are stored while the worker runs and after its warm shutdown; no process is left."""
    name, count = uuid.uuid4().hex, 6
    variables = environment(server, name, FOLDER=str(tmp_path), PREFIX=name)
    send = "import sys; from tests.hosts.tasks import work; [work.delay(f'{sys.argv[1]}-{n}') for n in range(6)]"
    command = [sys.executable, "-m", "celery", "-A", "tests.hosts.tasks", "worker", "-c", "2", "-P", pool, *more]
    with Process([*command, "--without-gossip", "--without-mingle"], variables, tmp_path / "log") as process:
        subprocess.run([sys.executable, "-c", send, f"{name}-running"], env=variables, cwd=ROOT, check=True, timeout=90)
        running = stored(Traces(server.uri, name), f"{name}-running", count)
        subprocess.run([sys.executable, "-c", send, f"{name}-ended"], env=variables, cwd=ROOT, check=True, timeout=90)
        eventually(lambda: not list(tmp_path.glob("*.msg")), "the other tasks taken")
        os.kill(process.pid, signal.SIGTERM)
        eventually(process.ended, "its end")
        assert not is_left(process)
    assert (running, stored(Traces(server.uri, name), f"{name}-ended", count)) == (count, count), process.output()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(server: MLflowServer, method: str) -> None:
    """Children that end right after their trace lose none."""
    name = uuid.uuid4().hex
    run(environment(server, name), "tests.hosts.children", method, name, "5")

    assert stored(Traces(server.uri, name), name, 5) == 5


@needs("mangum")
@pytest.mark.parametrize(("lifespan", "flushing"), [("auto", "false"), ("off", "true"), ("auto", "true")])
def test_mangum(server: MLflowServer, lifespan: str, flushing: str) -> None:
    """Each answer is the same as without the middleware, and its trace is stored even if the process is killed."""
    name = uuid.uuid4().hex
    variables = environment(server, name, MLFLOW_MIDDLEWARE_FLUSH_EACH_REQUEST=flushing)
    answered = run(variables, "tests.hosts.function", lifespan, name, str(COUNT))
    untraced = run(
        {**variables, "MLFLOW_MIDDLEWARE_ENABLED": "false"}, "tests.hosts.function", lifespan, "untraced", str(COUNT)
    )

    assert answered == untraced
    assert stored(Traces(server.uri, name), name, COUNT) == COUNT
