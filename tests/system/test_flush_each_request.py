"""`flush_each_request`: if the process is frozen at the end of the answer, its trace is stored already."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import requests

from tests.conftest import APPS, AppRunner, RunningApp, Traces
from tests.faults import faulty
from tests.servers import MLflowServer

DJANGO = ("django-wsgi", "django-asgi")

FLUSHING = {"MLFLOW_MIDDLEWARE_FLUSH_EACH_REQUEST": "true", "MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "60"}


@contextmanager
def frozen(app: RunningApp) -> Iterator[None]:
    """Freeze the app's processes."""
    os.killpg(app.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(app.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("path", ["/status/200", "/stream", "/fail"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in APPS])
def test_the_trace_is_stored_when_the_answer_ends(run_app: AppRunner, name: str, path: str, request_id: str) -> None:
    """With all of its info, also for a stream, and if the app raised."""
    app = run_app(name, None, **FLUSHING)
    app.get(path, x_request_id=request_id)

    with frozen(app):
        (trace,) = app.traces.search(f"attributes.client_request_id = '{request_id}'")
    assert trace.data.spans
    assert trace.info.tags["http.status_code"] == ("500" if path == "/fail" else "200")


@pytest.mark.parametrize("path", ["/file", "/announced-stream", "/broken-stream"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in DJANGO])
def test_files_and_unusual_streams_of_django(run_app: AppRunner, name: str, path: str, request_id: str) -> None:
    """They end like other answers."""
    app = run_app(name, None, **FLUSHING)
    with suppress(requests.RequestException):
        app.get(path, x_request_id=request_id)

    with frozen(app):
        (trace,) = app.traces.search(f"attributes.client_request_id = '{request_id}'")
    assert trace.info.tags["http.status_code"] == "200"


@pytest.mark.parametrize("mode", ["hang", "500", "reset"])
def test_an_answer_is_not_held_forever(server: MLflowServer, run_app: AppRunner, mode: str) -> None:
    """At most for ``shutdown_timeout``; the trace is delivered when the server has recovered."""
    name = uuid.uuid4().hex
    with faulty(server.uri) as proxy:
        variables = {**FLUSHING, "MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "1", "MLFLOW_TRACKING_URI": proxy.uri}
        app = run_app("asgi", None, ONCE=name, **variables)
        proxy.mode = mode
        assert app.get("/status/200", x_request_id=name).status_code == 200
        proxy.mode = "pass"
        proxy.released.set()

        assert Traces(server.uri, app.traces.experiment).one(name)
