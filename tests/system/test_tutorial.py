"""The tutorial, step by step like a reader."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import requests

from tests.conftest import Traces
from tests.servers import DEADLINE, ROOT, MLflowServer, clean_environment, eventually, free_port, serving

pytest.importorskip("fastapi", reason="fastapi is not installed in this environment")

pytestmark = pytest.mark.once


def test_the_conversation_is_stored_and_rated(server: MLflowServer, tmp_path: Path) -> None:
    """Two requests of one session and user, a rating, and the command that finds them."""
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=f"tutorial-{uuid.uuid4()}")
    port = free_port()
    uvicorn = [
        sys.executable,
        "-m",
        "uvicorn",
        "--port",
        str(port),
        "--app-dir",
        str(ROOT / "examples"),
        "tutorial:app",
    ]
    with serving(uvicorn, environment, tmp_path / "log", port) as (_, url):
        jane = {"X-User-ID": "jane"}
        first = requests.post(f"{url}/chats/c-1", json={"text": "whales sing"}, headers=jane, timeout=DEADLINE)
        second = requests.post(f"{url}/chats/c-1/stream", json={"text": "why"}, headers=jane, timeout=DEADLINE)
        assert first.json() == {"answer": "I found a page about whales and a page about sing."}
        assert second.text == "a page about why. "
        vote = {"trace_id": first.headers["X-MLflow-Trace-ID"], "value": True, "comment": "just right"}
        requests.post(f"{url}/feedback", json=vote, headers=jane, timeout=DEADLINE).raise_for_status()

        traces = Traces(server.uri, environment["MLFLOW_EXPERIMENT_NAME"])
        found = traces.wait("tags.`mlflow.trace.session` = 'c-1'", count=2)
        assert {trace.info.tags["mlflow.traceName"] for trace in found} == {
            "POST /chats/{chat_id}",
            "POST /chats/{chat_id}/stream",
        }
        assert {trace.info.tags["mlflow.trace.user"] for trace in found} == {"jane"}
        assert all("search" in [span.name for span in trace.data.spans] for trace in found)

        command = [sys.executable, "-m", "mlflow_middleware.cli", "traces", "--session", "c-1", "--feedback", "--json"]
        eventually(lambda: "just right" in _output(command, environment), "the rating")


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
