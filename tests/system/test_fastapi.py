"""FastAPI and Starlette: routers, mounts, other middleware, and exception handlers."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import requests
from mlflow.entities import Trace

from tests import corners
from tests.apps import launch
from tests.apps.launch import connected, running
from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer

pytest.importorskip("fastapi", reason="fastapi is not installed in this environment")

pytestmark = pytest.mark.xdist_group("fastapi-routes")

ORIGIN = "https://shop.example"


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


def ask_all(app: RunningApp, paths: list[str], **headers: str) -> dict[str, Asked]:
    """Send one request to each path, and read all their traces back at once."""
    batch = uuid.uuid4().hex
    answers = {
        f"{batch}-{index}": app.get(path, x_request_id=f"{batch}-{index}", **headers)
        for index, path in enumerate(paths)
    }
    traces = app.traces.wait(f"tags.client_request_id LIKE '{batch}-%'", len(paths))
    assert len(traces) == len(paths)
    stored = {trace.info.client_request_id: trace for trace in traces}
    return {path: Asked(answers[key], stored[key]) for path, key in zip(paths, answers, strict=True)}


def start(target: str, server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    traces = Traces(server.uri, f"routes-{uuid.uuid4().hex}")
    folder = tmp_path_factory.mktemp("fastapi")
    variables = connected(traces, server.uri) | {"ENVIRONMENT": "production"}
    with running("fastapi", target, folder, traces, **variables) as app:
        yield app


@pytest.fixture(scope="module")
def app(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app with the middleware added between others."""
    yield from start("tests.apps.fastapi_routes:app", server, tmp_path_factory)


@pytest.fixture(scope="module")
def wrapped(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app wrapped as a whole."""
    yield from start("tests.apps.fastapi_routes:wrapped", server, tmp_path_factory)


@pytest.fixture(scope="module")
def asked(app: RunningApp) -> dict[str, Asked]:
    """The outcome of one request to each path."""
    return ask_all(
        app,
        [
            "/v1/shops/amsterdam",
            "/tenants/acme/items/7",
            "/tenants/acme/",
            "/tenants/items/items/items",
            "/numbered/007/items/7",
            "/folders/a/b/c/end/items/7",
            "/tenants/acme/nothing",
            "/inner/here/now",
            "/static/__init__.py",
            "/static/nothing.css",
            "/teapot",
            "/wrong-value",
            "/fail",
        ],
        origin=ORIGIN,
    )


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/shops/amsterdam", "/v1/shops/{shop_id}"),
        ("/tenants/acme/items/7", "/tenants/{tenant}/items/{item_id}"),
        ("/tenants/acme/", "/tenants/{tenant}/"),
        ("/tenants/items/items/items", "/tenants/{tenant}/items/{item_id}"),
        ("/numbered/007/items/7", "/numbered/{number}/items/{item_id}"),
        ("/folders/a/b/c/end/items/7", "/folders/{folder}/end/items/{item_id}"),
        ("/tenants/acme/nothing", "/tenants/{tenant}"),
        ("/inner/here/now", "/inner/here/{thing}"),
        ("/static/__init__.py", "/static"),
        ("/static/nothing.css", "/static"),
    ],
)
def test_the_name_is_the_whole_template(asked: dict[str, Asked], path: str, route: str) -> None:
    """Prefixes of routers and mounts are part of it, values of parameters are not."""
    assert asked[path].name == f"GET {route}"
    assert asked[path].trace.info.tags["http.route"] == route


def test_an_app_mounted_in_an_app_makes_one_trace(asked: dict[str, Asked]) -> None:
    """If both have the middleware, the handler belongs to the outer one's trace."""
    inner = asked["/inner/here/now"]

    assert len(inner.trace.data.spans) == 1
    assert inner.answer.json()["trace_id"] == inner.trace.info.trace_id
    assert inner.answer.headers["X-MLflow-Trace-ID"] == inner.trace.info.trace_id


@pytest.mark.once
def test_a_wsgi_app_mounted_in_an_app_makes_one_trace(app: RunningApp, request_id: str) -> None:
    """Although its environ has nothing of the outer request."""
    answer = app.post("/wsgi/of/flask?q=1", b"{}", x_request_id=request_id)

    trace = app.traces.one(request_id)
    assert answer.text == trace.info.trace_id
    assert answer.headers["X-MLflow-Trace-ID"] == trace.info.trace_id
    assert len(trace.data.spans) == 1


def test_other_middleware_works_on_both_sides(asked: dict[str, Asked]) -> None:
    """Inner middleware can annotate the trace, outer middleware sees our headers."""
    shop = asked["/v1/shops/amsterdam"]

    assert shop.trace.info.tags.items() >= {"below": "before", "below-after": "200"}.items()
    assert shop.answer.headers["X-Seen-Above"] == shop.trace.info.trace_id


def test_cors_middleware_outside_leaves_our_headers_readable(asked: dict[str, Asked]) -> None:
    """A page on an allowed origin may read both ids."""
    headers = asked["/v1/shops/amsterdam"].answer.headers

    assert headers["Access-Control-Allow-Origin"] in {ORIGIN, "*"}
    assert headers["Access-Control-Expose-Headers"] == "X-Request-ID, X-MLflow-Trace-ID"


@pytest.mark.parametrize(("path", "status"), [("/teapot", 418), ("/wrong-value", 400)])
def test_an_exception_that_the_app_handles_is_no_error(asked: dict[str, Asked], path: str, status: int) -> None:
    """An HTTPException, and any other with a handler in the app."""
    assert asked[path].answer.status_code == status
    assert asked[path].state == "OK"
    assert asked[path].trace.data.spans[0].events == []
    assert asked[path].trace.info.tags["http.status_code"] == str(status)


def test_an_unhandled_exception_is_an_error(asked: dict[str, Asked]) -> None:
    """Its 500 is made outside all added middleware, so only the trace reports it."""
    failed = asked["/fail"]

    assert (failed.answer.status_code, failed.state, failed.name) == (500, "ERROR", "GET /fail")
    assert "X-MLflow-Trace-ID" not in failed.answer.headers


def test_wrapped_around_the_whole_app_it_reports_failures_too(wrapped: RunningApp) -> None:
    """The framework's 500 has the ids."""
    asked = ask_all(wrapped, ["/v1/shops/amsterdam", "/fail"], origin=ORIGIN)

    for path, status in (("/fail", 500), ("/v1/shops/amsterdam", 200)):
        assert asked[path].answer.status_code == status
        assert asked[path].answer.headers["X-Request-ID"] == asked[path].trace.info.client_request_id
        assert asked[path].answer.headers["X-MLflow-Trace-ID"] == asked[path].trace.info.trace_id
    assert asked["/fail"].state == "ERROR"
    assert asked["/v1/shops/amsterdam"].name == "GET /v1/shops/{shop_id}"
    exposed = asked["/v1/shops/amsterdam"].answer.headers["Access-Control-Expose-Headers"]
    assert exposed == "X-Pages, X-Request-ID, X-MLflow-Trace-ID"


@pytest.mark.once
@pytest.mark.parametrize("which", ["app", "wrapped"])
def test_background_tasks_delay_nothing(request: pytest.FixtureRequest, request_id: str, which: str) -> None:
    """The trace is stored while they run, also below other middleware, and then has their spans and tags."""
    app: RunningApp = request.getfixturevalue(which)
    corners.check_afterwards(app, "/after", request_id)


@pytest.mark.once
def test_a_file_keeps_its_headers(app: RunningApp) -> None:
    """Its length, its ranges, and the 304 for clients that have it already."""
    path, content = "/static/launch.py", Path(launch.__file__).read_bytes()
    whole = app.get(path)
    part = app.get(path, range="bytes=10-19")
    known = app.get(path, if_none_match=whole.headers["ETag"])
    head = app.session.head(app.url + path, timeout=60)

    assert (whole.content, whole.headers["Content-Length"]) == (content, str(len(content)))
    assert part.content == (content[10:20] if part.status_code == 206 else content)  # older Starlette knows no ranges
    assert (known.status_code, known.content) == (304, b"")
    assert (head.headers["Content-Length"], head.content) == (str(len(content)), b"")
    for answer in (whole, part, known, head):
        assert "X-MLflow-Trace-ID" in answer.headers
        trace = app.traces.one(answer.headers["X-Request-ID"])
        assert "http.client_disconnected" not in corners.root_of(trace).attributes
        assert trace.info.tags["http.status_code"] == str(answer.status_code)


@pytest.mark.parametrize("which", ["app", "wrapped"])
def test_a_chat_over_one_websocket_is_a_session_of_traces(
    request: pytest.FixtureRequest, wsproto: ModuleType, which: str
) -> None:
    """Each trace opened inside has the ids of the handshake, and later annotations of the app."""
    app: RunningApp = request.getfixturevalue(which)
    request_id = uuid.uuid4().hex
    headers = {"X-Request-ID": request_id, "X-Session-ID": "s-7", "X-User-ID": "guest"}

    said = say(wsproto, app.url, "/chat", ["hello", "I am jane", "bye"], headers)

    assert said == ["you said hello", "you said I am jane", "you said bye"]
    traces = app.traces.wait(f"tags.client_request_id = '{request_id}'", 3)
    traces.sort(key=lambda trace: trace.data.spans[0].start_time_ns)
    assert [trace.data.spans[0].name for trace in traces] == ["turn"] * 3
    for trace, user, plan in zip(traces, ("guest", "jane", "jane"), (None, "pro", "pro"), strict=True):
        ids = {"mlflow.trace.session": "s-7", "mlflow.trace.user": user}
        assert trace.info.client_request_id == request_id
        assert trace.info.tags.items() >= {**ids, "environment": "production"}.items()
        assert trace.info.trace_metadata.items() >= ids.items()
        assert trace.info.tags.get("plan") == plan


def test_an_excluded_websocket_passes_without_traces(app: RunningApp, wsproto: ModuleType) -> None:
    """The spans opened inside are silenced."""
    assert say(wsproto, app.url, "/health", ["hello"], {}) == ["hello"]

    ask_all(app, ["/v1/shops/amsterdam"])
    assert app.traces.search("tags.`mlflow.traceName` = 'pulse'") == []


@pytest.fixture(name="wsproto", scope="module")
def installed_wsproto() -> ModuleType:
    module: ModuleType = pytest.importorskip("wsproto", reason="wsproto is not installed in this environment")
    return module


def say(wsproto: ModuleType, url: str, path: str, texts: list[str], headers: dict[str, str]) -> list[str]:
    """Send some messages over a websocket, one after the other; return the answers."""
    events = wsproto.events
    host, port = url.removeprefix("http://").split(":")
    connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    extra = [(name.encode(), value.encode()) for name, value in headers.items()]
    left = list(texts)
    heard: list[str] = []
    with socket.create_connection((host, int(port)), timeout=30) as wire:
        wire.sendall(connection.send(events.Request(host=host, target=path, extra_headers=extra)))
        while len(heard) < len(texts):
            connection.receive_data(wire.recv(4096) or None)
            for event in connection.events():
                assert isinstance(event, events.AcceptConnection | events.TextMessage), event
                if isinstance(event, events.TextMessage):
                    heard.append(str(event.data))
                if left:
                    wire.sendall(connection.send(events.TextMessage(data=left.pop(0))))
    return heard


def test_plain_starlette_routes_have_their_templates(
    server: MLflowServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Functions and classes, with converters, inside mounts and behind a host pattern."""
    for starlette in start("tests.apps.starlette_routes:app", server, tmp_path_factory):
        asked = ask_all(starlette, ["/plain/3", "/class/c-1", "/api/v2/api"])
        of_host = ask_all(starlette, ["/of/shoes"], host="acme.example")

    names = {path: each.name for path, each in {**asked, **of_host}.items()}
    assert names == {
        "/plain/3": "GET /plain/{number}",
        "/class/c-1": "GET /class/{chat_id}",
        "/api/v2/api": "GET /api/v2/{word}",
        "/of/shoes": "GET /of/{thing}",
    }


def test_feedback_on_plain_starlette(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> None:
    """``feedback_route`` is a route like any other, with its prefix; it does not need FastAPI."""
    for starlette in start("tests.apps.starlette_routes:app", server, tmp_path_factory):
        request_id = uuid.uuid4().hex
        trace_id = starlette.get("/plain/3", x_request_id=request_id).headers["X-MLflow-Trace-ID"]
        said = json.dumps({"trace_id": trace_id, "value": "good"}).encode()
        answer = starlette.post("/api/feedback", said, content_type="application/json", x_user_id="ann")
        (found,) = starlette.traces.one(request_id).search_assessments()

        assert (answer.status_code, answer.json()) == (200, {"trace_id": trace_id})
        assert (found.feedback.value, found.source.source_id) == ("good", "ann")
