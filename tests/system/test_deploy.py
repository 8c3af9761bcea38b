"""``examples/databricks`` against the stand-in workspace; Docker and Kubernetes are in ``tests/deploy``."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.databricks_workspace import Workspace, workspace
from tests.servers import ROOT, clean_environment, command_for, eventually, free_port, serving

pytestmark = pytest.mark.once

DATABRICKS = ROOT / "examples" / "databricks"
TOKEN = "dapi-of-the-tests"


def variables(file: Path) -> dict[str, str]:
    """Return the variables that a file sets, as the shell reads it."""
    command = ["sh", "-c", 'set -a; . "$0"; env', str(file)]
    lines = subprocess.check_output(command, env={}, text=True, timeout=60).splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith(("PWD=", "_=", "SHLVL=")))


@pytest.fixture
def databricks() -> Iterator[Workspace]:
    """A stand-in workspace."""
    with workspace(TOKEN) as stand_in:
        yield stand_in


@pytest.fixture
def environment(databricks: Workspace, tmp_path: Path) -> dict[str, str]:
    """The example's variables, filled in as on its page."""
    said = variables(DATABRICKS / "workspace.env")
    filled_in = {"DATABRICKS_HOST": databricks.url, "DATABRICKS_TOKEN": TOKEN}
    assert said.keys() > filled_in.keys()
    return clean_environment(**{**said, **filled_in}, DATABRICKS_CONFIG_FILE=str(tmp_path / "no-profiles"))


def run(script: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the example's scripts, without mlflow's full package."""
    return subprocess.run(
        [sys.executable, str(DATABRICKS / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_databricks_example(databricks: Workspace, environment: dict[str, str], tmp_path: Path) -> None:
    """With its variables, an app's traces are in the workspace; the script verifies that, and the queries find them."""
    port = free_port()
    ids = [uuid.uuid4().hex for _ in range(2)]
    with serving(command_for("asgi", port), environment, tmp_path / "app.log", port) as (_, url):
        for request_id, user in zip(ids, ("jane", "sam"), strict=True):
            headers = {"X-Request-ID": request_id, "X-User-ID": user, "X-Session-ID": f"of-{user}"}
            assert requests.get(f"{url}/sync/chats/c-1", headers=headers, timeout=60).ok
        found = [eventually(lambda id=each: databricks.of_request(id), "the trace") for each in ids]  # type: ignore[misc]
    jane, sam = (info["trace_id"] for info in found)

    verified = run("verify.py", environment)
    asked = run("queries.py", environment, "jane", "of-sam", ids[0])

    assert verified.returncode == 0, verified.stderr
    first, *others = verified.stdout.splitlines()
    assert first == "Connected to MLflow. Found 2 recent traces in /Shared/production-genai-app."
    assert sorted(others) == sorted(f"{each} GET /sync/chats/{{chat_id}} OK production" for each in (jane, sam))
    assert asked.returncode == 0, asked.stderr
    answers = dict(line.split(": ", 1) for line in asked.stdout.splitlines())
    assert answers["the user's"] == answers["the request's"] == str([jane])
    assert answers["the session's"] == str([sam])
    assert jane in answers["the user's, by MLflow's own search"]


def test_a_wrong_token_is_reported(environment: dict[str, str]) -> None:
    """In one sentence, with the variables to check, and an exit code."""
    done = run("verify.py", {**environment, "DATABRICKS_TOKEN": "dapi-of-somebody-else"})

    assert done.returncode == 1
    assert "Error connecting to MLflow: " in done.stderr
    assert "DATABRICKS_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
