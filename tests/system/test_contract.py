"""Behaviour that every framework, sync and async, on every server, shares: run against each test app."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.conftest import RunningApp

TEMPLATES = {
    "asgi": "{}",
    "asgi-hypercorn": "{}",
    "wsgi": "{}",
    "fastapi": "{}",
    "flask": "<>",
    "django-wsgi": "<str:>",
    "django-asgi": "<str:>",
}


def template(app: RunningApp, kind: str) -> str:
    """Return the chat route's template in the framework's syntax."""
    pair = TEMPLATES[app.name]
    return f"/{kind}/chats/{pair[:-1]}chat_id{pair[-1]}"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_request_is_stored_with_its_whole_identity(app: RunningApp, request_id: str, kind: str) -> None:
    """Its name by the template, identity, deployment and the handler's own span are all there."""
    answer = app.get(f"/{kind}/chats/c-1", x_request_id=request_id, x_session_id="s-1", x_user_id="jane")

    assert answer.json()["request_id"] == request_id
    trace = app.traces.one(request_id)
    root, child = sorted(trace.data.spans, key=lambda span: span.parent_id is not None)
    route = template(app, kind)
    assert (root.name, root.span_type, root.parent_id) == (f"GET {route}", "CHAIN", None)
    assert (child.name, child.parent_id) == ("answer", root.span_id)
    assert trace.info.client_request_id == request_id
    assert str(trace.info.state) == "OK"
    assert (
        trace.info.tags.items()
        >= {
            "mlflow.traceName": f"GET {route}",
            "mlflow.trace.session": "s-1",
            "mlflow.trace.user": "jane",
            "client_request_id": request_id,
            "environment": "production",
            "app_version": "1.2.3",
            "deployment_id": "d-7",
            "region": "eu-west-1",
            "http.route": route,
            "http.status_code": "200",
        }.items()
    )
    assert trace.info.trace_metadata.items() >= {"mlflow.trace.session": "s-1", "mlflow.trace.user": "jane"}.items()
    assert (
        root.attributes.items()
        >= {
            "http.request.method": "GET",
            "http.route": route,
            "http.response.status_code": 200,
            "url.path": f"/{kind}/chats/c-1",
            "url.scheme": "http",
            "server.address": "127.0.0.1",
            "client.address": "127.0.0.1",
            "session.id": "s-1",
            "gen_ai.conversation.id": "s-1",
            "user.id": "jane",
            "deployment.environment.name": "production",
            "service.version": "1.2.3",
            "user_agent.original": f"python-requests/{requests.__version__}",
        }.items()
    )


def test_the_queries_of_mlflows_documentation_find_it(app: RunningApp, request_id: str) -> None:
    """Those by user, by session and by request id."""
    user, session = f"jane-{request_id}", f"s-{request_id}"
    app.get("/sync/chats/c-1", x_request_id=request_id, x_session_id=session, x_user_id=user)

    app.traces.one(request_id)
    for query in (
        f"tags.`mlflow.trace.user` = '{user}'",
        f"tags.`mlflow.trace.session` = '{session}'",
        f"attributes.client_request_id = '{request_id}'",
        f"metadata.`mlflow.trace.session` = '{session}'",
    ):
        (found,) = app.traces.search(query)
        assert found.info.client_request_id == request_id


def test_the_response_has_the_request_and_trace_id(app: RunningApp, request_id: str) -> None:
    """Both are in headers, which a browser on another origin may read."""
    answer = app.get("/sync/chats/c-1", x_request_id=request_id, origin="https://shop.example")

    assert answer.headers["X-Request-ID"] == request_id
    assert answer.headers["X-MLflow-Trace-ID"] == answer.json()["trace_id"]
    exposed = answer.headers["Access-Control-Expose-Headers"]
    assert {name.strip() for name in exposed.split(",")} == {"X-Request-ID", "X-MLflow-Trace-ID"}
    assert app.traces.one(request_id).info.trace_id == answer.headers["X-MLflow-Trace-ID"]


def test_a_request_without_an_id_gets_one(app: RunningApp) -> None:
    """The trace and the response have the same new id; there is no session and no user."""
    generated = app.get("/sync/chats/c-1").headers["X-Request-ID"]

    trace = app.traces.one(generated)
    assert len(generated) == 32
    assert "mlflow.trace.user" not in trace.info.tags
    assert "mlflow.trace.session" not in trace.info.trace_metadata


def test_a_handler_that_raises_makes_an_error_trace(app: RunningApp, request_id: str) -> None:
    """The client gets the framework's own 500; the trace has the exception."""
    assert app.get("/fail", x_request_id=request_id).status_code == 500

    trace = app.traces.one(request_id)
    (root,) = trace.data.spans
    assert str(trace.info.state) == "ERROR"
    assert trace.info.tags["http.status_code"] == "500"
    (event,) = root.events
    assert event.name == "exception"
    assert (event.attributes["exception.type"], event.attributes["exception.message"]) == (
        "RuntimeError",
        "the model is unavailable",
    )
    assert ", in fail" in str(event.attributes["exception.stacktrace"])
    assert root.name == "GET /fail"


@pytest.mark.parametrize(("status", "state"), [(200, "OK"), (404, "OK"), (500, "ERROR"), (503, "ERROR")])
def test_the_status_decides_the_state(app: RunningApp, request_id: str, status: int, state: str) -> None:
    """5xx is an error, 4xx is not."""
    app.get(f"/status/{status}", x_request_id=request_id)

    trace = app.traces.one(request_id)
    assert (trace.info.tags["http.status_code"], str(trace.info.state)) == (str(status), state)


def test_without_a_route_the_name_has_no_path(app: RunningApp, request_id: str) -> None:
    """The trace of a 404 without a route is named after the method only."""
    assert app.get(f"/nowhere/{request_id}", x_request_id=request_id).status_code == 404

    trace = app.traces.one(request_id)
    assert trace.info.tags["mlflow.traceName"] == trace.data.spans[0].name == "GET"
    assert "http.route" not in trace.info.tags


def test_the_apps_annotations_win(app: RunningApp, request_id: str) -> None:
    """They beat the headers, as tags and as metadata."""
    app.get("/annotate", x_request_id=request_id, x_user_id="header-user", x_session_id="header-session")

    info = app.traces.one(request_id).info
    wanted = {"mlflow.trace.user": "claimed", "mlflow.trace.session": "from-the-app"}
    assert info.tags.items() >= {**wanted, "plan": "pro"}.items()
    assert info.trace_metadata.items() >= {**wanted, "kb": "2026-11"}.items()


def test_outbound_headers_propagate_the_identity(app: RunningApp, request_id: str) -> None:
    """They have the three ids, also as baggage, and a traceparent of the span that makes the call."""
    headers = app.get("/outbound", x_request_id=request_id, x_session_id="s-1", x_user_id="jane").json()

    trace = app.traces.one(request_id)
    (call,) = [span for span in trace.data.spans if span.name == "call"]
    assert headers == {
        "X-Request-ID": request_id,
        "X-Session-ID": "s-1",
        "X-User-ID": "jane",
        "baggage": "session.id=s-1,user.id=jane",
        "traceparent": f"00-{trace.info.trace_id.removeprefix('tr-')}-{call.span_id}-01",
    }


def test_log_records_have_the_ids(app: RunningApp, request_id: str) -> None:
    """All four, and a dash for unknown ones."""
    answer = app.get("/log", x_request_id=request_id, x_user_id="jane")

    assert answer.text.strip() == f"hello|{request_id}|-|jane|{answer.headers['X-MLflow-Trace-ID']}|end"


def test_a_stream_keeps_the_context_to_its_last_chunk(app: RunningApp, request_id: str) -> None:
    """Child spans and annotations of each chunk belong to the request's trace."""
    assert app.get("/stream", x_request_id=request_id).text == "0\n1\n2\n"

    trace = app.traces.one(request_id)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    children = {span.name: span.parent_id for span in trace.data.spans if span is not root}
    assert children == {f"chunk-{index}": root.span_id for index in range(3)}
    assert all(trace.info.tags[f"chunk-{index}"] == "seen" for index in range(3))


def test_excluded_paths_are_silent(app: RunningApp, request_id: str) -> None:
    """Neither the request nor the spans opened inside make a trace."""
    answer = app.get("/health", x_request_id="health-" + request_id)
    app.get("/sync/chats/c-1", x_request_id=request_id)

    assert "X-MLflow-Trace-ID" not in answer.headers
    app.traces.one(request_id)
    assert app.traces.search(f"tags.client_request_id = 'health-{request_id}'") == []
    assert app.traces.search("tags.`mlflow.traceName` = 'health'") == []


def test_preflights_are_silent(app: RunningApp, request_id: str) -> None:
    """Browsers send them before a request to another origin; any other OPTIONS is traced."""
    asks = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    ids = [f"{request_id}-{number}" for number in range(2)]
    for headers, each in zip((asks, {"Origin": "https://shop.example"}), ids, strict=True):
        requests.options(f"{app.url}/sync/chats/c-1", headers={**headers, "X-Request-ID": each}, timeout=30)

    assert app.traces.one(ids[1]).info.tags["mlflow.traceName"].startswith("OPTIONS")
    assert app.traces.search(f"tags.client_request_id = '{ids[0]}'") == []


@pytest.mark.heavy
def test_five_hundred_concurrent_requests_never_mix(app: RunningApp, request_id: str) -> None:
    """Each is answered, and stored, with its own identity."""

    def ask(index: int) -> tuple[int, dict[str, str]]:
        kind = ("sync", "async")[index % 2]
        ids = {
            "X-Request-ID": f"{request_id}-{index}",
            "X-Session-ID": f"s-{index}",
            "X-User-ID": f"u-{index}",
        }
        answer = requests.get(f"{app.url}/{kind}/chats/{index}", headers=ids, timeout=60)
        return index, {**answer.json(), "header": answer.headers["X-MLflow-Trace-ID"]}

    with ThreadPoolExecutor(32) as pool:
        answers = dict(pool.map(ask, range(500)))

    for index, seen in answers.items():
        assert (seen["chat_id"], seen["session_id"], seen["user_id"]) == (
            str(index),
            f"s-{index}",
            f"u-{index}",
        )
        assert seen["request_id"] == f"{request_id}-{index}"
        assert seen["trace_id"] == seen["header"]
    if app.name not in ("fastapi", "flask", "django-asgi"):
        return  # one app of each kind shows how it is stored: a server takes 10 s for that many
    stored = app.traces.wait(f"tags.client_request_id LIKE '{request_id}-%'", 500)
    for trace in stored:
        index = int(str(trace.info.client_request_id).rsplit("-", 1)[1])
        tags = trace.info.tags
        assert (tags["mlflow.trace.session"], tags["mlflow.trace.user"]) == (f"s-{index}", f"u-{index}")
        assert trace.info.trace_id == answers[index]["trace_id"]
        assert len(trace.data.spans) == 2
