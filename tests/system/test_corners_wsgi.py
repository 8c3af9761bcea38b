"""WSGI's corner cases: an app behind the middleware answers the same bytes in the same order, and is traced."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import corners, raw
from tests.apps import corners_wsgi
from tests.apps.launch import connected, running
from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer, clean_environment, free_port, serving

pytestmark = [pytest.mark.once, pytest.mark.xdist_group("corners-wsgi")]

TARGET = "tests.apps.corners_wsgi:app"


@pytest.fixture(scope="module")
def app(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app under gunicorn."""
    traces = Traces(server.uri, f"corners-{uuid.uuid4().hex}")
    variables = connected(traces, server.uri) | corners.VARIABLES
    with running("wsgi", TARGET, tmp_path_factory.mktemp("corners"), traces, **variables) as running_app:
        yield running_app


@pytest.mark.parametrize(
    ("path", "method", "header"),
    [
        ("/plain", "GET", ""),
        ("/plain", "HEAD", ""),
        ("/chunks", "GET", ""),
        ("/chunks", "HEAD", ""),
        ("/created", "POST", "Content-Length: 0"),
        ("/no-content", "DELETE", ""),
        ("/not-modified", "GET", 'If-None-Match: "5"'),
        ("/range", "GET", "Range: bytes=0-4"),
        ("/plain", "GET", "Upgrade: x-other"),
        ("/late", "GET", ""),
        ("/written", "GET", ""),
        ("/file", "GET", ""),
        ("/replaced", "GET", ""),
        ("/too-late", "GET", ""),
        ("/broken", "GET", ""),
    ],
)
def test_the_same_bytes_come_back(app: RunningApp, request_id: str, path: str, method: str, header: str) -> None:
    """As without the middleware; and nested middlewares make one trace, without a disconnect."""
    headers = [header] if header else []
    bare = raw.answer(app, f"/bare{path}", *headers, method=method)
    answer = raw.answer(app, path, *headers, f"X-Request-ID: {request_id}", method=method)

    assert raw.without_ours(answer) == raw.without_ours(bare)
    assert f"x-request-id: {request_id}".encode() in answer.lower()
    trace = app.traces.one(request_id)
    root = corners.root_of(trace)
    assert len([span for span in trace.data.spans if span.name.startswith(method)]) == 1
    assert "http.client_disconnected" not in root.attributes
    fails = path in ("/broken", "/too-late")
    assert str(trace.info.state) == ("ERROR" if fails else "OK")
    assert [event.name for event in root.events] == ["exception"] * fails
    if path not in ("/file", "/too-late"):
        assert trace.info.tags["http.status_code"] == bare.split()[1].decode()


def test_an_iterable_has_the_context_on_each_chunk(app: RunningApp, request_id: str) -> None:
    """On the first, on the last, and during its close."""
    app.get("/chunks", x_request_id=request_id)

    trace = app.traces.one(request_id)
    assert corners.names_of(trace) == {"chunk 0", "chunk 1", "chunk 2", "closed"}
    assert {trace.info.tags.get(name) for name in corners.names_of(trace)} == {"seen"}
    assert corners.root_of(trace).outputs == "0\n1\n2\n"


@pytest.mark.parametrize(("path", "span", "outputs"), [("/late", "begun", "late"), ("/written", "written", None)])
def test_late_starts_and_write_are_traced(
    app: RunningApp, request_id: str, path: str, span: str, outputs: str | None
) -> None:
    """One app starts its answer with the first chunk, another one uses ``write()``."""
    app.get(path, x_request_id=request_id)

    trace = app.traces.one(request_id)
    assert corners.names_of(trace) == {span}
    assert corners.root_of(trace).outputs == (outputs or "first,second,third")


def test_a_file_is_sent_by_the_server_itself(app: RunningApp) -> None:
    """With ``wsgi.file_wrapper``, gunicorn lets the kernel send it: it is not read in Python."""
    assert raw.answer(app, "/file").endswith(Path(corners_wsgi.__file__).read_bytes())
    assert app.get("/reads").text == "0"


@pytest.mark.parametrize(("path", "outputs"), [("/broken", "begun"), ("/too-late", "begun")])
def test_a_stream_that_raises_midway_is_an_error(app: RunningApp, request_id: str, path: str, outputs: str) -> None:
    """The chunks sent before are kept, whether the app raises or the server does, from ``exc_info``."""
    raw.answer(app, path, f"X-Request-ID: {request_id}")

    trace = app.traces.one(request_id)
    (event,) = corners.root_of(trace).events
    assert event.attributes["exception.message"] == "the model went away"
    assert (str(trace.info.state), corners.root_of(trace).outputs) == ("ERROR", outputs)


def test_a_stream_longer_than_mlflow_keeps_a_trace_is_stored(app: RunningApp, request_id: str) -> None:
    """It is stored whole, with the right statistics; there are more of them than MLflow's buffer holds."""
    corners.check_long_streams(app, request_id)


def test_a_client_that_stops_after_the_third_token(app: RunningApp, request_id: str) -> None:
    """It is no error; the tokens that it was sent are kept, and counted."""
    with raw.connect(app) as client:
        client.sendall(raw.head_of("/tokens/3000/60000", f"X-Request-ID: {request_id}"))
        raw.until_third_token(client)

    corners.check_stopped(app.traces.one(request_id))


def test_a_broken_pipe_in_write_is_a_disconnect(app: RunningApp, request_id: str) -> None:
    """The app gets the server's exception, which is no error of the app."""
    with raw.connect(app) as client:
        client.sendall(raw.head_of("/write-on", f"X-Request-ID: {request_id}"))
        raw.until_third_token(client)

    trace = app.traces.one(request_id)
    root = corners.root_of(trace)
    assert root.attributes["http.client_disconnected"] is True
    assert (str(trace.info.state), root.outputs[:3]) == ("OK", ["tick"] * 3)


@pytest.mark.parametrize(("path", "state"), [("/after", "OK"), ("/after-and-fail", "ERROR")])
def test_work_after_the_answer_delays_nothing(app: RunningApp, request_id: str, path: str, state: str) -> None:
    """The trace is stored during ``close()``, and ends with the last byte; its spans, tags and failure are added."""
    corners.check_afterwards(app, path, request_id, state)


@pytest.mark.heavy
@pytest.mark.parametrize("what", ["upload", "download"])
def test_a_gibibyte_takes_no_memory(app: RunningApp, what: str) -> None:
    """The app's process takes at most 2 MiB more than without the middleware."""
    assert corners.memory_for_a_gibibyte(app, what) < 2048


def test_a_worker_killed_by_its_timeout_leaves_its_trace(
    server: MLflowServer, tmp_path_factory: pytest.TempPathFactory, request_id: str
) -> None:
    """gunicorn's SIGABRT unwinds the request: its trace is an error, with the spans that were open."""
    traces, folder, port = (
        Traces(server.uri, f"hanging-{uuid.uuid4().hex}"),
        tmp_path_factory.mktemp("hang"),
        free_port(),
    )
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--timeout", "15", TARGET]
    variables = {**connected(traces, server.uri), "MLFLOW_MIDDLEWARE_SPOOL_DIR": str(folder / "spool")}
    with serving(command, clean_environment(**variables), folder / "log", port) as (process, url):
        app = RunningApp("hanging", url, process, traces)
        raw.answer(app, "/hang", f"X-Request-ID: {request_id}")
        trace = traces.one(request_id)

    assert (str(trace.info.state), corners.names_of(trace)) == ("ERROR", {"hanging"})
    assert corners.root_of(trace).attributes["error.type"] == "SystemExit"
