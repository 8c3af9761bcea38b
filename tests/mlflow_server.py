"""The environment of the MLflow server that the tests use: ``python -m tests.mlflow_server`` makes it.

Full MLflow is installed there and nowhere else: the tests' own environments have the slim package, like our users'.
This module needs only the standard library, so that each tox environment can run it first.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import venv
from pathlib import Path

MLFLOW = os.environ.get("TEST_MLFLOW_SERVER", "mlflow>=3.17,<3.19")
"""The requirement of full MLflow for the server."""

BACKEND = os.environ.get("TEST_BACKEND", "sqlite")
"""The backend of the session's MLflow server: ``sqlite`` or ``postgresql``."""

DRIVERS = {"postgresql": ["psycopg2-binary"]}
"""Additional requirements of each backend."""


def home() -> Path:
    """Return the folder of the environment; each backend has its own."""
    tox = Path(__file__).resolve().parents[1] / ".tox"
    given = Path(os.environ.get("TEST_MLFLOW_SERVER_HOME", tox / "mlflow-server"))
    return given if BACKEND == "sqlite" else given.with_name(f"{given.name}-{BACKEND}")


def python() -> Path:
    """Return its interpreter; fail if the environment has not been made."""
    if not _ready().exists():
        raise AssertionError(
            f"The tests need an MLflow server, and {home()} is not its environment ({MLFLOW}): "
            "run `python -m tests.mlflow_server`, which each tox environment does before its tests."
        )
    return home() / "bin" / "python"


def make() -> None:
    """Make the environment unless it exists; of several processes, one makes it, and the others wait."""
    home().parent.mkdir(parents=True, exist_ok=True)
    with home().with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _ready().exists():
            print(f"making the environment of the MLflow server, {home()}, once: a minute or two", flush=True)
            venv.create(home(), with_pip=True, clear=True)
            install = [str(home() / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, MLFLOW, *DRIVERS.get(BACKEND, [])], check=True)
            _ready().touch()


def _ready() -> Path:
    """Written last: it names the requirement, so that another one makes the environment anew."""
    return home() / f"ready-{MLFLOW}"


if __name__ == "__main__":
    make()
