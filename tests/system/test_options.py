"""Every option works as documented, however it is given, and in every framework."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from mlflow.entities import Span, Trace

from tests.apps.launch import refusal
from tests.conftest import APPS, AppRunner, RunningApp

pytestmark = pytest.mark.once

NAMES = [name for name in APPS if name not in ("asgi-hypercorn", "django-asgi")]
"""Those two differ in the server only."""

CALLER = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
"""Trace and span of a calling service."""

CHANGED: dict[str, Any] = {
    "request_id_header": "X-Correlation-ID",
    "session_id_header": "X-Chat-ID",
    "user_id_header": "X-Account",
    "user_id_hmac_key": "a key of ours",
    "capture_response_body": False,  # the app answers with the user id
    "tags": {"team": "search"},
    "deployment_tags": {"stage": "ENVIRONMENT", "missing": "NOT_SET_ANYWHERE"},
    "capture_headers": ["Authorization", "X-Plan", "X-Absent"],
    "error_statuses": ["404", "500-599"],
    "exclude": ["/status/20?"],
    "trust_incoming_trace": True,
}
"""Options given in the framework's own way."""

VARIABLES = {
    "MLFLOW_MIDDLEWARE_REQUEST_ID_HEADER": "X-Beaten-By-The-Framework",
    "MLFLOW_MIDDLEWARE_SESSION_ID_HEADER": "X-Chat-ID",
    "MLFLOW_MIDDLEWARE_IDENTIFY": "tests.apps.behaviour.identify",
    "MLFLOW_MIDDLEWARE_RESPONSE_HEADERS": "trace_id=X-Trace,user_id=X-Who",
    "MLFLOW_MIDDLEWARE_TAGS": "team=search, tier=gold",
    "MLFLOW_MIDDLEWARE_CAPTURE_HEADERS": "X-Plan,Authorization",
    "MLFLOW_MIDDLEWARE_REDACT": "plan",
    "MLFLOW_MIDDLEWARE_ERROR_STATUSES": "404,429",
}
"""Options given as environment variables."""


@dataclass
class Asked:
    """One request: its answer, and its stored trace."""

    answer: requests.Response
    trace: Trace

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.trace.info.tags)

    @property
    def root(self) -> Span:
        (root,) = [span for span in self.trace.data.spans if span.name.startswith("GET")]
        return root


def ask_all(app: RunningApp, wanted: Mapping[str, tuple[str, dict[str, str]]], header: str) -> dict[str, Asked]:
    """Send requests, each with its path and headers, and read all their traces back at once."""
    batch = uuid.uuid4().hex
    answers = {
        what: requests.get(app.url + path, headers={**headers, header: f"{batch}-{what}"}, timeout=60)
        for what, (path, headers) in wanted.items()
    }
    traces = app.traces.wait(f"tags.client_request_id LIKE '{batch}-%'", len(wanted))
    assert len(traces) == len(wanted)
    stored = {trace.info.client_request_id: trace for trace in traces}
    return {what: Asked(answer, stored[f"{batch}-{what}"]) for what, answer in answers.items()}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES])
def name(request: pytest.FixtureRequest) -> str:
    """Each test app in turn."""
    for package in APPS[request.param]:
        pytest.importorskip(package, reason=f"{package} is not installed in this environment")
    return str(request.param)


# --- options given in the framework's own way ---


@pytest.fixture(scope="module")
def changed_app(name: str, run_app: AppRunner) -> RunningApp:
    """The app with other options."""
    return run_app(name, CHANGED)


@pytest.fixture(scope="module")
def changed(changed_app: RunningApp) -> dict[str, Asked]:
    """The outcome of requests to it."""
    who = {"X-Chat-ID": "s-1", "X-Account": "jane", "X-Session-ID": "wrong", "X-User-ID": "wrong"}
    wanted = {
        "chat": ("/sync/chats/c-1", who),
        "log": ("/log", who),
        "outbound": ("/outbound", who),
        "secrets": (
            "/sync/chats/c-1?token=hunter2&q=why",
            {"Authorization": "Bearer hunter2", "X-Plan": "pro"},
        ),
        "404": ("/status/404", {}),
        "health": ("/health", {}),
        "called": ("/sync/chats/c-1", {"traceparent": f"00-{uuid.uuid4().hex}-{CALLER[1]}-01"}),
        **{
            f"malformed-{index}": ("/sync/chats/c-1", {"traceparent": traceparent})
            for index, traceparent in enumerate(MALFORMED)
        },
    }
    return ask_all(changed_app, wanted, "X-Correlation-ID")


MALFORMED = [
    "nonsense",
    f"00-{CALLER[0]}-{CALLER[1]}",
    f"00-{CALLER[0].upper()}-{CALLER[1]}-01",
    f"ff-{CALLER[0]}-{CALLER[1]}-01",
    f"00-{'0' * 32}-{CALLER[1]}-01",
    f"00-{CALLER[0]}-{'0' * 16}-01",
]


def test_identity_is_read_from_the_headers_that_the_options_name(changed: dict[str, Asked]) -> None:
    """The default names have no meaning any more."""
    assert changed["chat"].tags["mlflow.trace.session"] == "s-1"
    assert changed["chat"].answer.json()["user_id"] == "jane"


def test_the_request_id_returns_under_its_own_name(changed: dict[str, Asked]) -> None:
    """Changing `request_id_header` is enough."""
    chat = changed["chat"]

    assert chat.answer.headers["X-Correlation-ID"] == chat.trace.info.client_request_id
    assert "X-Request-ID" not in chat.answer.headers
    assert chat.answer.headers["X-MLflow-Trace-ID"] == chat.trace.info.trace_id


def test_a_user_id_is_stored_as_a_pseudonym_only(changed: dict[str, Asked]) -> None:
    """Tag, metadata, span and log lines have its HMAC-SHA256; the user id itself is nowhere."""
    pseudonym = hmac.new(b"a key of ours", b"jane", hashlib.sha256).hexdigest()
    chat, log = changed["chat"], changed["log"]

    assert chat.tags["mlflow.trace.user"] == pseudonym
    assert chat.trace.info.trace_metadata["mlflow.trace.user"] == pseudonym
    assert chat.root.attributes["user.id"] == chat.root.attributes["user.hash"] == pseudonym
    assert "jane" not in json.dumps(chat.trace.to_dict())
    assert log.answer.text.split("|")[3] == pseudonym


def test_the_next_service_gets_the_user_id_itself(changed: dict[str, Asked]) -> None:
    """Outbound headers have our own header names, and the next service has a key of its own."""
    headers = changed["outbound"].answer.json()

    assert (headers["X-Account"], headers["X-Chat-ID"]) == ("jane", "s-1")
    assert headers["X-Correlation-ID"] == changed["outbound"].trace.info.client_request_id


def test_tags_are_the_chosen_ones(changed: dict[str, Asked]) -> None:
    """Fixed tags, and those of the deployment whose variable is set."""
    tags = changed["chat"].tags

    assert (tags["team"], tags["stage"]) == ("search", "production")
    assert not {"missing", "environment", "app_version"} & tags.keys()


def test_captured_headers_are_on_the_span_without_secrets(changed: dict[str, Asked]) -> None:
    """Requested headers that the client sent; names in the redaction list are replaced, in the query too."""
    attributes = changed["secrets"].root.attributes
    captured = {key: value for key, value in attributes.items() if key.startswith("http.request.header.")}

    assert captured == {
        "http.request.header.authorization": ["[redacted]"],
        "http.request.header.x-plan": ["pro"],
    }
    assert attributes["url.query"] == "token=[redacted]&q=why"
    assert "hunter2" not in json.dumps(changed["secrets"].trace.to_dict())


def test_other_statuses_can_be_errors(changed: dict[str, Asked]) -> None:
    """If 404 is among them, a 404 is an error."""
    assert str(changed["404"].trace.info.state) == "ERROR"


def test_other_paths_can_be_excluded(changed_app: RunningApp, changed: dict[str, Asked]) -> None:
    """The globs replace the default ones: the health check is traced now."""
    answer = requests.get(f"{changed_app.url}/status/204", timeout=60)

    assert answer.status_code == 204
    assert not {"X-Correlation-ID", "X-MLflow-Trace-ID"} & set(answer.headers)
    assert {span.name for span in changed["health"].trace.data.spans} == {"GET /health", "health"}


def test_a_trusted_caller_is_the_parent(changed: dict[str, Asked]) -> None:
    """Its trace id is ours, its span our root's parent, and the trace is stored as complete as others."""
    called = changed["called"]
    trace_id = called.answer.request.headers["traceparent"].split("-")[1]

    assert called.trace.info.trace_id == called.answer.headers["X-MLflow-Trace-ID"] == f"tr-{trace_id}"
    assert called.root.parent_id == CALLER[1]
    assert str(called.trace.info.state) == "OK"
    assert called.tags.items() >= {"team": "search", "http.status_code": "200"}.items()
    assert called.trace.info.client_request_id == called.answer.headers["X-Correlation-ID"]
    assert {span.name for span in called.trace.data.spans} == {called.root.name, "answer"}


@pytest.mark.parametrize("index", range(len(MALFORMED)), ids=MALFORMED)
def test_a_malformed_traceparent_is_ignored(changed: dict[str, Asked], index: int) -> None:
    """The trace is a new one, without parent and link."""
    asked = changed[f"malformed-{index}"]

    assert asked.trace.info.trace_id not in {f"tr-{CALLER[0]}", f"tr-{'0' * 32}"}
    assert (asked.root.parent_id, asked.root.links) == (None, [])
    assert str(asked.trace.info.state) == "OK"


# --- given as environment variables ---


@pytest.fixture(scope="module")
def from_environment(name: str, run_app: AppRunner) -> dict[str, Asked]:
    """The outcome of requests to an app whose options, except one, are environment variables."""
    app = run_app(name, {"request_id_header": "X-Correlation-ID"}, **VARIABLES)
    wanted = {
        "chat": (
            "/sync/chats/c-1",
            {"X-Chat-ID": "s-1", "X-User-ID": "jane", "Authorization": "Bearer-7", "X-Plan": "pro"},
        ),
        "404": ("/status/404", {}),
        "500": ("/status/500", {}),
        "called": ("/sync/chats/c-1", {"traceparent": f"00-{CALLER[0]}-{CALLER[1]}-01"}),
    }
    return ask_all(app, wanted, "X-Correlation-ID")


def test_environment_variables_are_applied(from_environment: dict[str, Asked]) -> None:
    """Header names, mappings and lists; the framework's own settings beat them."""
    chat, tags = from_environment["chat"], from_environment["chat"].tags

    assert (tags["mlflow.trace.session"], tags["team"], tags["tier"]) == ("s-1", "search", "gold")
    assert chat.answer.json()["request_id"] == chat.trace.info.client_request_id
    assert [str(from_environment[status].trace.info.state) for status in ("404", "500")] == ["ERROR", "OK"]


def test_the_configured_redaction_list_applies(from_environment: dict[str, Asked]) -> None:
    """It replaces the default list."""
    attributes = from_environment["chat"].root.attributes

    assert attributes["http.request.header.x-plan"] == ["[redacted]"]
    assert attributes["http.request.header.authorization"] == ["Bearer-7"]


def test_identify_beats_the_header(from_environment: dict[str, Asked]) -> None:
    """It is given as a dotted path; the headers fill in the rest."""
    tags = from_environment["chat"].tags

    assert (tags["mlflow.trace.user"], tags["mlflow.trace.session"]) == ("auth-of-Bearer-7", "s-1")


def test_response_headers_are_the_configured_ones(from_environment: dict[str, Asked]) -> None:
    """Under the names given, and nothing else."""
    chat = from_environment["chat"]

    assert chat.answer.headers["X-Trace"] == chat.trace.info.trace_id
    assert chat.answer.headers["X-Who"] == "auth-of-Bearer-7"
    assert not {"X-Request-ID", "X-Correlation-ID", "X-MLflow-Trace-ID"} & set(chat.answer.headers)


def test_a_caller_is_linked_unless_trusted(from_environment: dict[str, Asked]) -> None:
    """The trace has its own id and root, and a link to the caller's span."""
    called = from_environment["called"]

    assert called.trace.info.trace_id != f"tr-{CALLER[0]}"
    assert called.root.parent_id is None
    (link,) = called.root.links
    assert (link.trace_id.removeprefix("tr-"), link.span_id) == CALLER


# --- disabled, and wrong ---


def test_a_disabled_middleware_passes_everything_through(name: str, run_app: AppRunner, request_id: str) -> None:
    """There are no headers of ours, and no trace of the request; the app's own traces go through MLflow's exporter."""
    app = run_app(name, {"enabled": False}, ONCE=request_id)

    answer = app.get("/status/200", x_request_id=request_id)
    log = app.get("/log", x_request_id=request_id)

    assert answer.status_code == 200
    assert not {"X-Request-ID", "X-MLflow-Trace-ID"} & set(answer.headers)
    assert log.text.strip() == "hello|-|-|-|-|end"
    assert app.traces.search() == []


def test_wrong_options_stop_the_start(name: str) -> None:
    """The server process ends, and reports each one with its value and the allowed values."""
    options = {"session_header": "X-Chat-ID", "max_queue_bytes": "lots", "user_id_header": "X User"}
    variables = {
        "MLFLOW_MIDDLEWARE_SESION_ID_HEADER": "X-Chat-ID",
        "MLFLOW_MIDDLEWARE_ENABLED": "perhaps",
        "MLFLOW_MIDDLEWARE_IDENTIFY": "tests.apps.behaviour.nobody",
    }

    printed = refusal(name, APP_OPTIONS=json.dumps(options), **variables)

    for sentence in (
        "unknown option 'session_header' (did you mean 'session_id_header'?)",
        "option 'max_queue_bytes': input should be a valid integer",
        "option 'user_id_header': string should match pattern",
        "unknown option 'sesion_id_header' (did you mean 'session_id_header'?)",
        "option 'enabled' (from MLFLOW_MIDDLEWARE_ENABLED): input should be a valid boolean",
        "option 'identify' (from MLFLOW_MIDDLEWARE_IDENTIFY): 'tests.apps.behaviour.nobody' cannot be imported",
    ):
        assert sentence in printed


def test_a_misspelt_variable_alone_stops_the_start(name: str) -> None:
    """Otherwise the mistake would show weeks later, in conversations without sessions."""
    printed = refusal(name, MLFLOW_MIDDLEWARE_SESSION_HEADER="X-Chat-ID")

    assert "unknown option 'session_header' (did you mean 'session_id_header'?)" in printed
