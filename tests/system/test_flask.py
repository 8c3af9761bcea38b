"""Flask: factories, blueprints, error handlers, hooks, streams and mounted apps."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from mlflow.entities import Trace

from tests import corners
from tests.apps.launch import connected, running
from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer

pytest.importorskip("flask", reason="flask is not installed in this environment")

pytestmark = pytest.mark.xdist_group("flask-routes")


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


@pytest.fixture(scope="module")
def app(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app of the factory, with another one mounted in it."""
    traces = Traces(server.uri, f"flask-{uuid.uuid4().hex}")
    folder = tmp_path_factory.mktemp("flask")
    variables = connected(traces, server.uri)
    with running("flask", "tests.apps.flask_routes:app", folder, traces, **variables) as running_app:
        yield running_app


@pytest.fixture(scope="module")
def asked(app: RunningApp) -> dict[str, Asked]:
    """The outcome of one request to each path."""
    paths = [
        "/v1/shops/7?key=1",
        "/v1/shops/7",
        "/missing",
        "/divide",
        "/fail",
        "/visit",
        "/count/3",
        "/mounted/v1/shops/7?key=1",
        "/mounted/count/3",
        "/mounted/nothing",
        "/nothing",
    ]
    batch = uuid.uuid4().hex
    answers = {f"{batch}-{index}": app.get(path, x_request_id=f"{batch}-{index}") for index, path in enumerate(paths)}
    traces = app.traces.wait(f"tags.client_request_id LIKE '{batch}-%'", len(paths))
    assert len(traces) == len(paths)
    stored = {trace.info.client_request_id: trace for trace in traces}
    return {path: Asked(answers[key], stored[key]) for path, key in zip(paths, answers, strict=True)}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/shops/7?key=1", "GET /v1/shops/<int:shop_id>"),
        ("/mounted/v1/shops/7?key=1", "GET /mounted/v1/shops/<int:shop_id>"),
        ("/mounted/nothing", "GET"),
        ("/nothing", "GET"),
    ],
)
def test_the_name_is_the_whole_rule(asked: dict[str, Asked], path: str, name: str) -> None:
    """Prefixes of blueprints and mounts are part of it; a path without a rule gives none."""
    assert asked[path].name == name


def test_tracing_set_up_twice_makes_one_trace(asked: dict[str, Asked]) -> None:
    """As does an app mounted in an app if both have the middleware."""
    for path in ("/v1/shops/7?key=1", "/mounted/v1/shops/7?key=1"):
        assert len(asked[path].trace.data.spans) == 1
        assert asked[path].answer.headers["X-MLflow-Trace-ID"] == asked[path].trace.info.trace_id


def test_a_hook_that_answers_early_keeps_the_route(asked: dict[str, Asked]) -> None:
    """A 401 of `before_request` shows which route it guarded."""
    refused = asked["/v1/shops/7"]

    assert (refused.answer.status_code, refused.state) == (401, "OK")
    assert refused.name == "GET /v1/shops/<int:shop_id>"


def test_a_handled_exception_is_judged_by_the_answer(asked: dict[str, Asked]) -> None:
    """A 404 for a LookupError is no error; the app's own 500 page is one, without the exception."""
    missing, divided = asked["/missing"], asked["/divide"]

    assert (missing.answer.status_code, missing.state) == (404, "OK")
    assert (divided.answer.text, divided.answer.status_code, divided.state) == ("our own page", 500, "ERROR")
    assert missing.trace.data.spans[0].events == divided.trace.data.spans[0].events == []


def test_the_apps_own_sessions_still_work(app: RunningApp, asked: dict[str, Asked]) -> None:
    """Its cookie is received and sent as before."""
    visit = asked["/visit"].answer

    assert (visit.json()["visits"], visit.cookies["visits"]) == (1, "1")
    again = requests.get(f"{app.url}/visit", cookies={"visits": "41"}, timeout=60)
    assert again.json() == {"visits": 42}


def test_an_exception_that_only_the_500_page_handles_is_recorded(asked: dict[str, Asked]) -> None:
    """The client gets the app's page, with the ids; the trace gets the exception."""
    failed = asked["/fail"]

    assert (failed.answer.text, failed.answer.status_code, failed.state) == ("sorry", 500, "ERROR")
    assert failed.answer.headers["X-MLflow-Trace-ID"] == failed.trace.info.trace_id
    (event,) = failed.trace.data.spans[0].events
    assert event.attributes["exception.message"] == "the model is unavailable"


@pytest.mark.parametrize("path", ["/count/3", "/mounted/count/3"])
def test_teardown_functions_run_in_their_request(app: RunningApp, asked: dict[str, Asked], path: str) -> None:
    """After the last chunk of a stream, whose generator has both Flask's request and ours."""
    counted = asked[path]
    request_id = counted.trace.info.client_request_id

    assert counted.answer.text == "0\n1\n2\n"
    assert counted.trace.info.tags["last-number"] == "2"
    assert app.get(f"/torn-down/{request_id}").json() == {"trace_id": counted.trace.info.trace_id}


@pytest.mark.once
@pytest.mark.parametrize("path", ["/after", "/mounted/after"])
def test_work_on_close_delays_nothing(app: RunningApp, request_id: str, path: str) -> None:
    """The trace is stored while it runs, and then has its spans and tags."""
    corners.check_afterwards(app, path, request_id)
