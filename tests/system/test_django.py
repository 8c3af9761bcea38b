"""Django: WSGI and ASGI, sync and async views, streams, URL configurations, other middleware, system checks."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from mlflow.entities import Trace

from tests import corners, raw
from tests.apps.launch import connected, refusal, running
from tests.conftest import RunningApp, Traces
from tests.servers import ROOT, MLflowServer, clean_environment

django = pytest.importorskip("django", reason="django is not installed in this environment")

PROTOCOLS = [pytest.param(name, marks=pytest.mark.xdist_group(f"{name}-routes")) for name in ("wsgi", "asgi")]


@dataclass
class Asked:
    """One request: its answer, and its stored trace."""

    answer: requests.Response
    trace: Trace

    @property
    def name(self) -> str:
        return str(self.trace.data.spans[0].name)

    @property
    def state(self) -> str:
        return str(self.trace.info.state)


def serve(protocol: str, server: MLflowServer, folder: Path, **variables: str) -> Iterator[RunningApp]:
    """The project, by WSGI or ASGI."""
    traces = Traces(server.uri, f"django-{uuid.uuid4().hex}")
    target = f"tests.apps.django_servers:{protocol}"
    variables = {**connected(traces, server.uri), **variables}
    with running(f"django-{protocol}", target, folder, traces, **variables) as app:
        yield app


def ask_all(app: RunningApp, paths: list[str]) -> dict[str, Asked]:
    """Send one request to each path, and read all their traces back at once."""
    batch = uuid.uuid4().hex
    answers = {f"{batch}-{index}": app.get(path, x_request_id=f"{batch}-{index}") for index, path in enumerate(paths)}
    traces = app.traces.wait(f"tags.client_request_id LIKE '{batch}-%'", len(paths))
    assert len(traces) == len(paths)
    stored = {trace.info.client_request_id: trace for trace in traces}
    return {path: Asked(answers[key], stored[key]) for path, key in zip(paths, answers, strict=True)}


@pytest.fixture(scope="module", params=PROTOCOLS)
def app(
    request: pytest.FixtureRequest, server: MLflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """The project, by WSGI and by ASGI in turn."""
    yield from serve(request.param, server, tmp_path_factory.mktemp("django"))


@pytest.fixture(scope="module", params=PROTOCOLS[1:])
def asgi(
    request: pytest.FixtureRequest, server: MLflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """The project, by ASGI."""
    yield from serve(request.param, server, tmp_path_factory.mktemp("django"))


@pytest.fixture(scope="module")
def asked(app: RunningApp) -> dict[str, Asked]:
    """The outcome of one request to each path."""
    return ask_all(
        app,
        [
            "/shops/amsterdam/sync/c-1",
            "/shops/amsterdam/async/c-1",
            "/shops/amsterdam/old/abc/",
            "/rescued",
            "/async/rescued",
            "/gone",
            "/nothing",
            "/stream",
            "/async/stream",
        ],
    )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/shops/amsterdam/sync/c-1", "/shops/<slug:shop>/sync/<str:chat_id>"),
        ("/shops/amsterdam/async/c-1", "/shops/<slug:shop>/async/<str:chat_id>"),
        ("/shops/amsterdam/old/abc/", "/shops/<slug:shop>/old/{chat_id}/"),
    ],
)
def test_the_name_is_the_whole_pattern(asked: dict[str, Asked], path: str, route: str) -> None:
    """The prefix of `include()` is part of it."""
    assert asked[path].name == f"GET {route}"
    assert asked[path].trace.info.tags["http.route"] == route


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_sync_and_async_views_know_their_request(asked: dict[str, Asked], kind: str) -> None:
    """Under both protocols."""
    chat = asked[f"/shops/amsterdam/{kind}/c-1"]

    assert chat.answer.json()["trace_id"] == chat.trace.info.trace_id
    assert chat.answer.headers["X-MLflow-Trace-ID"] == chat.trace.info.trace_id


@pytest.mark.parametrize("path", ["/rescued", "/async/rescued"])
def test_an_exception_that_another_middleware_handles_is_no_error(asked: dict[str, Asked], path: str) -> None:
    """Its `process_exception` made a 409 of it."""
    rescued = asked[path]

    assert (rescued.answer.text, rescued.answer.status_code, rescued.state) == ("rescued", 409, "OK")
    assert rescued.trace.data.spans[0].events == []
    assert rescued.name == f"GET {path}"


def test_a_404_is_no_error(asked: dict[str, Asked]) -> None:
    """Whether a view raises it or no pattern matches; only the first has a route."""
    gone, nothing = asked["/gone"], asked["/nothing"]

    assert (gone.answer.status_code, gone.state, gone.name) == (404, "OK", "GET /gone")
    assert (nothing.answer.status_code, nothing.state, nothing.name) == (404, "OK", "GET")
    assert gone.trace.data.spans[0].events == nothing.trace.data.spans[0].events == []


@pytest.mark.parametrize("path", ["/stream", "/async/stream"])
def test_sync_and_async_streams_keep_the_request_to_the_last_chunk(asked: dict[str, Asked], path: str) -> None:
    """Under both protocols, annotations of the last chunk are stored."""
    stream = asked[path]

    assert stream.answer.text == "0\n1\n2\n"
    assert stream.answer.headers["X-MLflow-Trace-ID"] == stream.trace.info.trace_id
    assert stream.trace.info.tags["last-number"] == "2"
    assert (stream.state, stream.name) == ("OK", f"GET {path}")


def test_an_interrupted_stream_is_an_error(app: RunningApp, request_id: str) -> None:
    """The client sees it end too early, the trace has the exception."""
    with pytest.raises(requests.RequestException):
        requests.get(f"{app.url}/broken-stream", headers={"X-Request-ID": request_id}, timeout=60)

    trace = app.traces.one(request_id)
    (event,) = trace.data.spans[0].events
    assert event.attributes["exception.message"] == "the model went away"
    assert str(trace.info.state) == "ERROR"


@pytest.mark.once
@pytest.mark.parametrize("path", ["/after", "/after/stream"])
def test_work_on_close_delays_nothing(app: RunningApp, request_id: str, path: str) -> None:
    """It runs in the response's ``close()``, its resources' and `request_finished`: its spans and tags are added."""
    corners.check_afterwards(app, path, request_id)


@pytest.mark.once
def test_a_cache_around_the_middleware_can_keep_an_answer(app: RunningApp, request_id: str) -> None:
    """It pickles the answer; the copy is closed like any other."""
    answer = app.get("/pickled", x_request_id=request_id)

    assert (answer.text, answer.status_code) == ("pickled", 200)
    assert corners.root_of(app.traces.one(request_id)).outputs == "pickled"


def test_one_response_for_many_requests_has_each_requests_ids(app: RunningApp, request_id: str) -> None:
    """The app's own exposed headers stay, once."""
    for number in (1, 2):
        answer = app.get("/always", x_request_id=f"{request_id}-{number}", origin="https://example.com")
        assert answer.headers["X-Request-ID"] == f"{request_id}-{number}"
        assert answer.headers["X-MLflow-Trace-ID"] == app.traces.one(f"{request_id}-{number}").info.trace_id
        assert answer.headers["Access-Control-Expose-Headers"] == "X-Own, X-Request-ID, X-MLflow-Trace-ID"


reports_disconnects = pytest.mark.skipif(
    django.VERSION < (5, 0), reason="before 5.0, Django does not listen for clients that leave"
)
NOT_REPORTED = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 does not tell of a task's cancellation"
)


@reports_disconnects
@pytest.mark.parametrize("kind", ["async", pytest.param("sync", marks=NOT_REPORTED)])
def test_a_client_that_disconnects_during_a_view(asgi: RunningApp, request_id: str, kind: str) -> None:
    """Django cancels the view, and waits for one in a thread; the trace has its route, and the disconnect."""
    path = {"async": "/async/slow/7", "sync": "/slow/7"}[kind]
    with raw.connect(asgi) as client:
        client.sendall(raw.head_of(path, f"X-Request-ID: {request_id}"))
        asgi.get("/has-begun")
    asgi.get("/let-go")
    trace = asgi.traces.one(request_id)

    assert (trace.info.tags["mlflow.traceName"], trace.info.state) == (f"GET {path[:-1]}<int:chat_id>", "OK")
    assert corners.root_of(trace).attributes["http.client_disconnected"] is True


@reports_disconnects
def test_a_client_that_disconnects_during_a_stream(asgi: RunningApp, request_id: str) -> None:
    """The trace has the chunks that were sent."""
    with raw.connect(asgi) as client:
        client.sendall(raw.head_of("/endless/7", f"X-Request-ID: {request_id}"))
        while b"\n3\n" not in client.recv(65536):
            pass
    trace = asgi.traces.one(request_id)

    assert (trace.info.tags["mlflow.traceName"], trace.info.state) == ("GET /endless/<int:chat_id>", "OK")
    assert corners.root_of(trace).attributes["http.client_disconnected"] is True
    assert "3" in corners.root_of(trace).outputs


def test_a_stream_on_an_excluded_path_is_silent(app: RunningApp, request_id: str) -> None:
    """None of the spans of its chunks is a trace."""
    assert [app.get(path).text for path in ("/metrics", "/healthz")] == ["up 1", "up 1"]

    app.get("/pickled", x_request_id=request_id)
    app.traces.one(request_id)
    assert app.traces.search("tags.`mlflow.traceName` = 'metrics'") == []


def check(**variables: str) -> tuple[int, str]:
    """Return exit code and output of ``manage.py check``."""
    ended = subprocess.run(
        [sys.executable, "-m", "django", "check", "--settings", "tests.apps.django_settings"],
        env=clean_environment(**variables),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_the_system_check_accepts_a_valid_configuration() -> None:
    """It reports no issues, and the exit code is 0."""
    assert check(MLFLOW_MIDDLEWARE_SESSION_ID_HEADER="X-Chat-ID") == (
        0,
        "System check identified no issues (0 silenced).\n",
    )


@pytest.mark.parametrize(
    ("options", "variables", "problem"),
    [
        (
            {"SESSION_HEADER": "X-Chat-ID"},
            {},
            "unknown option 'session_header' (did you mean 'session_id_header'?)",
        ),
        (
            {},
            {"MLFLOW_MIDDLEWARE_ENABLED": "perhaps"},
            "option 'enabled' (from MLFLOW_MIDDLEWARE_ENABLED): input",
        ),
        (["SESSION_HEADER"], {}, "settings.MLFLOW_MIDDLEWARE must be a dict of options, not list"),
    ],
    ids=["misspelt", "ill-typed variable", "no dict"],
)
def test_the_system_check_names_a_wrong_option(options: object, variables: dict[str, str], problem: str) -> None:
    """It is an error with a stable id, so that a deployment stops there."""
    code, printed = check(APP_OPTIONS=json.dumps(options), **variables)

    assert code != 0
    assert f"(mlflow_middleware.E001) {problem}" in printed


def test_a_wrong_option_stops_the_server() -> None:
    """With Django's own exception."""
    printed = refusal("django-wsgi", APP_OPTIONS=json.dumps({"session_header": "X-Chat-ID"}))

    assert "ImproperlyConfigured: mlflow-middleware is misconfigured: unknown option 'session_header'" in printed


def test_the_system_check_warns_when_nothing_will_be_traced() -> None:
    """The app is installed, the middleware is not; a warning stops nothing."""
    code, printed = check(APP_UNTRACED="yes")

    assert code == 0
    assert "(mlflow_middleware.W001) mlflow_middleware.django is installed, but no request" in printed
    assert "HINT: Add 'mlflow_middleware.django.TraceMiddleware' as the first entry of MIDDLEWARE" in printed


def test_the_system_check_accepts_a_projects_own_subclass() -> None:
    """A subclass of the middleware traces as well, so there is nothing to warn about."""
    code, printed = check(APP_TRACE="tests.apps.django_settings.OwnTraceMiddleware")

    assert (code, "W001" in printed) == (0, False)
