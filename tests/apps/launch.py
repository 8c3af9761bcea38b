"""Runs apps that are not in ``tests.conftest.APPS``, and apps that must not start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import RunningApp, Traces
from tests.servers import ROOT, clean_environment, command_for, free_port, serving


@contextmanager
def running(like: str, target: str, folder: Path, traces: Traces, **variables: str) -> Iterator[RunningApp]:
    """Serve an app in a process of its own.

    Args:
        like: The test app whose server runs it, a key of ``tests.conftest.APPS``.
        target: The app, as ``module:attribute``.
        folder: The directory of its log.
        traces: The server and experiment of its traces.
        variables: Its environment variables.
    """
    port = free_port()
    command = [*command_for(like, port)[:-1], target]
    log = folder / f"{like}-{port}.log"
    with serving(command, clean_environment(**variables), log, port) as (process, url):
        yield RunningApp(target, url, process, traces)


def connected(traces: Traces, uri: str) -> dict[str, str]:
    """Return the environment variables of an app that stores its traces there."""
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": traces.experiment}


def refusal(app: str, **variables: str) -> str:
    """Return the output of a test app's server process that does not start; fail if the process keeps running."""
    command = command_for(app, free_port())
    ended = subprocess.run(
        command,
        env=clean_environment(**variables),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0, ended.stdout
    return ended.stdout
