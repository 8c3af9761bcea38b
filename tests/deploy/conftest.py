"""An app that sends its traces to the fixture ``collector`` of the test module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import Traces
from tests.deploy.rotel import Rotel
from tests.servers import PATIENT, ROOT, MLflowServer, clean_environment, command_for, free_port, serving


def variables(file: Path) -> dict[str, str]:
    """Return the variables that a file sets."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def traces(server: MLflowServer, request_id: str) -> Traces:
    """The traces of an experiment for one test."""
    created = requests.post(
        f"{server.uri}/api/2.0/mlflow/experiments/create", json={"name": f"collected-{request_id}"}, timeout=60
    )
    assert created.ok
    return Traces(server.uri, f"collected-{request_id}")


@pytest.fixture
def app(server: MLflowServer, traces: Traces, collector: Rotel, tmp_path: Path) -> Iterator[str]:
    """The test app with the variables of ``app.env``, and the addresses and folders of this test."""
    given = variables(ROOT / "examples" / "collector" / "app.env")
    filled_in = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "MLFLOW_TRACKING_URI": server.uri,
        "MLFLOW_EXPERIMENT_ID": str(traces.experiment_id),
        "MLFLOW_MIDDLEWARE_SPOOL_DIR": str(tmp_path / "spool"),
    }
    assert given.keys() > filled_in.keys()
    environment = clean_environment(**{**given, **filled_in}, **PATIENT, APP_OPTIONS="{}", ENVIRONMENT="production")
    port = free_port()
    with serving(command_for("fastapi", port), environment, tmp_path / "app.log", port) as (_, url):
        yield url
