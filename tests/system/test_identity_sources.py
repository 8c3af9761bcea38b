"""Ids in unusual places, read back from a server: bodies, paths, queries, cookies, logins, baggage."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.entities import Trace

from tests.apps.launch import connected, refusal, running
from tests.conftest import APPS, AppRunner, RunningApp, Traces
from tests.servers import MLflowServer

pytestmark = pytest.mark.once

NAMES = [name for name in APPS if name != "asgi-hypercorn"]
"""Those two differ in the server only."""

OPTIONS: dict[str, Any] = {
    "request_id_from": ["query.rid", "header.X-Request-ID"],
    "session_id_from": ["body.context.chat", "path.chat_id", "cookie.chat"],
    "user_id_from": ["body.users.0", "baggage.user.id"],
    "metadata_only": ["/echo"],
    "response_headers": {"request_id": "X-Request-ID", "session_id": "X-Session-ID"},
}
BODY = json.dumps({"context": {"chat": "by-body"}, "users": ["jane"]})
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES])
def app(request: pytest.FixtureRequest, run_app: AppRunner) -> RunningApp:
    """Each test app in turn, with the sources of its ids configured."""
    return run_app(request.param, OPTIONS)


def who(trace: Trace) -> tuple[str | None, str | None]:
    """Return session and user, which must be the same in tags and metadata."""
    found = [trace.info.tags, trace.info.trace_metadata]
    sessions, users = ({each.get(f"mlflow.trace.{kind}") for each in found} for kind in ("session", "user"))
    (session,), (user,) = sessions, users
    return session, user


def test_ids_are_read_from_their_sources(app: RunningApp) -> None:
    """In each framework, also from bodies that are not stored."""
    batch = uuid.uuid4().hex
    asked: dict[str, tuple[str, str, dict[str, str], str | None]] = {
        "json": ("POST", "/echo", {"content-type": "application/json", "cookie": "chat=by-cookie"}, BODY),
        "form": ("POST", "/echo", {"content-type": FORM}, "context.chat=by-form&x=1"),
        "unread": ("POST", "/unread", {"content-type": "application/json", "cookie": "a=b; chat=by-cookie"}, BODY),
        "path": ("GET", "/sync/chats/by-path", {"cookie": "chat=by-cookie", "baggage": "user.id=jos%C3%A9"}, None),
        "log": ("GET", "/log", {"cookie": "chat=by-cookie"}, None),
    }
    answers = {
        what: requests.request(
            method, f"{app.url}{path}?rid={batch}-{what}", headers={**headers, "x-user-id": "no"}, data=body, timeout=60
        )
        for what, (method, path, headers, body) in asked.items()
    }

    traces = app.traces.wait(f"tags.client_request_id LIKE '{batch}-%'", len(asked))
    stored = {str(trace.info.client_request_id).removeprefix(f"{batch}-"): trace for trace in traces}
    assert who(stored["json"]) == ("by-body", "jane")
    assert who(stored["form"])[0] == "by-form"
    assert who(stored["unread"]) == ("by-cookie", None)
    assert who(stored["path"]) == ("by-path", "jos\N{LATIN SMALL LETTER E WITH ACUTE}")
    if app.name != "asgi":  # it reports its route only when it has answered
        assert answers["path"].json()["session_id"] == "by-path"
    assert "|by-cookie|" in answers["log"].text
    if app.name != "wsgi":  # it reads the body after it has started to answer
        assert answers["json"].headers["X-Session-ID"] == "by-body"
    assert answers["json"].headers["X-Request-ID"] == f"{batch}-json"
    assert answers["json"].json() == json.loads(BODY)
    assert "by-body" not in str(stored["json"].data.spans[0].inputs)


@pytest.mark.parametrize(
    ("preset", "headers", "expected"),
    [
        ("databricks-apps", {"X-Forwarded-User": "1@w", "X-Session-ID": "s-1"}, ("s-1", "1@w")),
        ("open-webui", {"X-OpenWebUI-User-Id": "u-1", "X-OpenWebUI-Chat-Id": "c-1"}, ("c-1", "u-1")),
        ("iap", {"X-Goog-Authenticated-User-Id": "accounts.google.com:1234"}, (None, "1234")),
    ],
)
def test_presets(
    run_app: AppRunner, request_id: str, preset: str, headers: dict[str, str], expected: tuple[str | None, str]
) -> None:
    """Set in the environment, where the platform is known."""
    app = run_app("asgi", MLFLOW_MIDDLEWARE_IDENTITY_PRESET=preset)
    requests.get(f"{app.url}/log", headers={"X-Request-ID": request_id, "X-User-ID": "no", **headers}, timeout=60)

    assert who(app.traces.one(request_id)) == expected


@pytest.mark.parametrize("name", ["fastapi", "flask", "django-wsgi"])
def test_a_wrong_source_stops_the_app(name: str) -> None:
    """With the framework's own error, which has the option, the value, and the allowed values."""
    pytest.importorskip(name.partition("-")[0], reason=f"{name} is not installed in this environment")
    printed = refusal(name, MLFLOW_MIDDLEWARE_SESSION_ID_FROM="boddy.chat")

    assert "session_id_from" in printed
    assert "'boddy.chat' is not a source; use header.NAME, " in printed


def test_a_wrong_source_is_an_error_of_djangos_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like any other wrong option."""
    pytest.importorskip("django", reason="django is not installed in this environment")
    from mlflow_middleware.django.checks import check_settings

    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.apps.identity_django")
    monkeypatch.setenv("MLFLOW_MIDDLEWARE_USER_ID_FROM", "scope.")

    (error,) = check_settings(None)
    assert error.id == "mlflow_middleware.E001"
    assert "user_id_from" in error.msg


@pytest.fixture(params=["wsgi", "asgi"])
def project(request: pytest.FixtureRequest, server: MLflowServer, tmp_path: Path) -> Iterator[RunningApp]:
    """A Django project with logins."""
    pytest.importorskip("django", reason="django is not installed in this environment")
    traces = Traces(server.uri, f"logins-{uuid.uuid4().hex}")
    options = {"user_id_from": ["scope.user.username"], "session_id_from": ["scope.session.chat_id"]}
    variables = {"APP_OPTIONS": json.dumps(options), "APP_DATABASE": str(tmp_path / "project.db")}
    target = f"tests.apps.identity_django:{request.param}"
    with running(
        f"django-{request.param}", target, tmp_path, traces, **connected(traces, server.uri), **variables
    ) as app:
        yield app


def test_the_logged_in_user_of_django(project: RunningApp, request_id: str) -> None:
    """From its own sessions and database, in sync and async views that do not use it; none without a login."""
    project.get("/login/jane")
    paths = ["/chat", "/async/chat", "/async/stream"]
    for path in paths:
        assert project.get(path, x_request_id=f"{request_id}-{path}").status_code == 200
    assert requests.get(f"{project.url}/chat", headers={"X-Request-ID": f"{request_id}-nobody"}, timeout=60).ok

    traces = project.traces.wait(f"tags.client_request_id LIKE '{request_id}-%'", len(paths) + 1)
    stored = {str(trace.info.client_request_id).removeprefix(f"{request_id}-"): who(trace) for trace in traces}
    assert stored == {**dict.fromkeys(paths, ("chat-of-jane", "jane")), "nobody": (None, None)}
    assert "tracing failed" not in project.process.output()


def test_the_examples(server: MLflowServer, request_id: str, tmp_path: Path) -> None:
    """``examples/identity_app.py`` works as documented."""
    pytest.importorskip("fastapi", reason="fastapi is not installed in this environment")
    traces = Traces(server.uri, f"identity-{request_id}")
    variables = connected(traces, server.uri)
    with running("fastapi", "examples.identity_app:app", tmp_path, traces, **variables) as app:
        kind = "application/json"
        app.post("/chats/c-1", b'{"context": {"conversation_id": "b-1"}}', content_type=kind, x_request_id="1")
        app.post("/chats/c-1", b"{}", content_type=kind, x_request_id="2", x_user_id="joe")
        app.get("/me", x_request_id="3", x_session_id="s-1")
        stored = {trace.info.client_request_id: who(trace) for trace in app.traces.wait("trace.status = 'OK'", 3)}
        assert stored == {"1": ("b-1", None), "2": ("c-1", "joe"), "3": ("s-1", "jane")}
    with running("fastapi", "examples.identity_app:agents", tmp_path, traces, **variables) as app:
        app.post("/agents/writer", b'{"thread": "t-1"}', content_type=kind, x_request_id="4")
        assert who(app.traces.one("4")) == ("t-1/writer", None)
