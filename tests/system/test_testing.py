"""Users' own tests see their traces, with no server and no waiting."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.conftest import Traces
from tests.faults import faulty
from tests.servers import ROOT, MLflowServer, clean_environment

pytestmark = [pytest.mark.once, pytest.mark.slow]


def run_pytest(*arguments: str, **variables: str) -> str:
    """Run pytest; return its output, and fail if it fails."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-rs", *arguments]
    ended = subprocess.run(
        command,
        env=clean_environment(MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT="0.1", **variables),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_traces_are_captured_and_nothing_is_sent(server: MLflowServer) -> None:
    """`tests.apps.captured`, with a tracking server in its environment that counts its requests."""
    with faulty(server.uri) as stand_in:
        stand_in.mode = "500"
        printed = run_pytest("tests/apps/captured.py", "-k", "not earlier_pending", MLFLOW_TRACKING_URI=stand_in.uri)
        assert stand_in.failed == 0, printed
    assert "11 passed, 1 deselected" in printed


def test_without_a_tracking_server() -> None:
    """Tests do not need one; and none is looked for."""
    printed = run_pytest("tests/apps/captured.py", "-k", "not earlier_pending", "-o", "log_cli=true")

    assert "MLFLOW_TRACKING_URI" not in printed
    assert "traces cannot be sent" not in printed


def test_a_process_that_uses_mlflows_own_exporter() -> None:
    """Capturing works with ``delivery="mlflow"`` as well, before and after."""
    run_pytest("tests/apps/captured.py", "-k", "nested or flask or own", MLFLOW_MIDDLEWARE_DELIVERY="mlflow")


def test_pending_traces_are_delivered_after_the_capture(server: MLflowServer) -> None:
    """Traces from before and after the capture reach the server; captured ones do not."""
    traces = Traces(server.uri, f"captured-{uuid.uuid4().hex}")
    variables = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": traces.experiment}
    program = (
        "import sys; sys.argv.append('--server')\n"
        "from tests.apps.captured import test_earlier_pending_traces_stay_pending as test; test()"
    )
    environment = clean_environment(**variables)
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, timeout=120, check=True)

    assert sorted(trace.data.spans[0].name for trace in traces.search()) == ["after", "before"]


def test_the_example_passes() -> None:
    """The tests in ``examples/`` pass."""
    pytest.importorskip("fastapi", reason="fastapi is not installed in this environment")
    pytest.importorskip("httpx2", reason="httpx2 is not installed in this environment")

    assert "2 passed" in run_pytest("examples/test_traces.py")
    assert "1 passed" in run_pytest("examples/test_privacy.py")


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_the_example_of_a_framework_passes(framework: str) -> None:
    """With the test client of the framework."""
    pytest.importorskip(framework, reason=f"{framework} is not installed in this environment")

    assert "1 passed" in run_pytest(f"examples/test_{framework}_traces.py")


def test_pytest_starts_without_mlflow(tmp_path: Path) -> None:
    """The fixture is available, and MLflow is imported only by a test that uses it."""
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert 'mlflow' not in sys.modules\n"
        "def test_fixture(captured_traces):\n    assert captured_traces == [] and 'mlflow' in sys.modules\n"
    )

    assert "2 passed" in run_pytest("--rootdir", str(tmp_path), str(tmp_path / "test_it.py"))
