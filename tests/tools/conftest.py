"""Fixtures: stand-ins for the tools' servers, and apps that use the tools."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.collector import CollectorStandIn, collecting
from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer, clean_environment, free_port, serving

RunTool = Callable[..., RunningApp]
"""Run ``module:factory``, on ASGI or WSGI, with these environment variables."""


@pytest.fixture
def collector() -> Iterator[CollectorStandIn]:
    """A stand-in for one test."""
    with collecting() as server:
        yield server


@pytest.fixture
def run_tool(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunTool]:
    """Run an app until the test ends."""
    with ExitStack() as stack:

        def run(factory: str, kind: str = "asgi", **variables: str) -> RunningApp:
            experiment = f"tools-{uuid.uuid4().hex}"
            named = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": experiment}
            port = free_port()
            asgi = [sys.executable, "-m", "uvicorn", "--factory", "--port", str(port), factory]
            wsgi = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--threads", "2", f"{factory}()"]
            log = tmp_path_factory.mktemp("tool") / "log"
            environment = clean_environment(**{**named, **variables})
            process, url = stack.enter_context(serving(asgi if kind == "asgi" else wsgi, environment, log, port))
            return RunningApp(factory, url, process, Traces(server.uri, experiment))

        yield run
