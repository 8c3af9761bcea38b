"""An MLflow server that stores in a folder: it does not take spans over OTLP, nor a trace that it has already."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.conftest import Traces
from tests.servers import MLflowServer, clean_environment

pytestmark = pytest.mark.once

SCRIPT = """
import pathlib, sys, mlflow
from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings
delivery.start(Settings.load())
for number in range(3):
    with mlflow.start_span("work") as span:
        mlflow.update_current_trace(client_request_id=f"{sys.argv[1]}-{number}", tags={"plan": "pro"})
        if number == 2:  # as after an attempt that ended half-way
            (experiment,) = {path.parent for path in pathlib.Path(sys.argv[2]).glob("*/traces")}
            (experiment / "traces" / span.trace_id).mkdir()
            (experiment / "traces" / span.trace_id / "trace_info.yaml").touch()
    assert delivery.flush(60)
assert not delivery.stats().dropped
"""


@pytest.fixture(scope="module")
def file_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """An MLflow server on a folder."""
    folder = tmp_path_factory.mktemp("server")
    server = MLflowServer(folder, f"file:{folder}/store", variables={"MLFLOW_ALLOW_FILE_STORE": "true"})
    server.start()
    yield server
    server.stop()


def test_it_gets_each_trace_once_and_whole(file_server: MLflowServer) -> None:
    """The first, which shows that it takes no spans; the next; and one that an attempt has left half stored."""
    name = uuid.uuid4().hex
    environment = clean_environment(MLFLOW_TRACKING_URI=file_server.uri, MLFLOW_EXPERIMENT_NAME=name)
    command = [sys.executable, "-c", SCRIPT, name, str(file_server.folder / "store")]
    subprocess.run(command, env=environment, timeout=120, check=True)

    found = Traces(file_server.uri, name).search("tags.plan = 'pro'")
    assert {trace.info.client_request_id for trace in found} == {f"{name}-{number}" for number in range(3)}
    assert [len(trace.data.spans) for trace in found] == [1, 1, 1]
