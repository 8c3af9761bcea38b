"""Content that the options keep out of a trace, and secrets that the app itself adds: in the encoded trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import mlflow
import pytest
from mlflow.entities import Trace

from mlflow_middleware.capture import spans
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import pseudonym
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.request.sampling import keeps
from mlflow_middleware.settings import Settings, SettingsError
from mlflow_middleware.testing import captured_traces
from mlflow_middleware.trace.description import describe
from mlflow_middleware.trace.record import TraceRecord
from tests.secrets import CASES, Case

HEADERS = {
    "user-agent": "curl/8",
    "x-user-id": "jane",
    "content-type": "application/json",
    "referer": "https://shop.example/?token=hunter2",
    "host": "shop.example",
}


PLAIN = Settings()


def ask(app: Any = lambda: None, body: bytes = b'{"a": 1}', path: str = "/users/jane", **options: Any) -> Trace:
    """Return one request's trace."""
    settings = Settings(**options) if options else PLAIN
    exchange = Exchange("POST", path, dict(HEADERS), "q=tea&sid=hunter2", client="203.0.113.77")
    with captured_traces() as traces:
        trace = RequestTrace.open(exchange, settings)
        trace.activate()
        trace.received(body)
        try:
            app()
        except Exception as error:
            trace.failed(error)
        exchange.route = "/users/{name}"
        trace.response_started(200, "application/json")
        trace.sent(body)
        trace.last_byte()
        trace.deactivate()
        trace.finish()
    return traces[0]


def root(trace: Trace) -> dict[str, Any]:
    """Return the root span's attributes."""
    return dict(trace.data.spans[0].attributes)


def test_without_request_bodies_the_query_is_not_kept_either() -> None:
    """It reveals as much about the user as a form does; the answer is kept."""
    trace = ask(capture_request_body=False)

    assert "url.query" not in root(trace)
    assert (trace.data.spans[0].inputs, trace.data.spans[0].outputs) == (None, {"a": 1})


def test_a_metadata_only_path_is_stored_as_its_route() -> None:
    """Without query and bodies; other paths are stored as before."""
    hidden, shown = ask(metadata_only=["/users/*"]), ask(metadata_only=["/other/*"])

    assert root(hidden)["url.path"] == "/users/{name}"
    assert "tea" not in json.dumps(hidden.to_dict())
    assert root(shown)["url.path"] == "/users/jane"
    assert root(shown)["url.query"] == "q=tea&sid=[redacted]"


@pytest.mark.parametrize(("kept", "address"), [("full", "203.0.113.77"), ("network", "203.0.113.0"), ("none", None)])
def test_the_clients_address_is_kept_as_configured(kept: str, address: str | None) -> None:
    """All of it, its network, or nothing."""
    assert root(ask(client_address=kept)).get("client.address") == address


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        ("/verify/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "/verify/[redacted]"),
        ("/shop;jsessionid=hunter2/cart", "/shop;jsessionid=[redacted]"),
        ("/users/jane/tokens", "/users/jane/tokens"),
    ],
)
def test_a_secret_in_the_path_is_replaced(path: str, stored: str) -> None:
    """If it is recognized as one."""
    assert root(ask(path=path))["url.path"] == stored


def test_captured_headers_honour_redaction_and_pseudonyms() -> None:
    """A URL's token, and the header that identifies the user."""
    attributes = root(ask(capture_headers=["Referer", "X-User-ID", "Host"], user_id_hmac_key="k"))

    assert attributes["http.request.header.referer"] == ["https://shop.example/?token=[redacted]"]
    assert attributes["http.request.header.x-user-id"] == [pseudonym("jane", b"k")]
    assert attributes["http.request.header.host"] == ["shop.example"]


@pytest.mark.parametrize(
    ("options", "headers", "query"),
    [
        ({"user_id_from": ["header.X-Who", "header.X-Mail"]}, {"x-who": "jane", "x-mail": "jane"}, ""),
        ({"identity_preset": "databricks-apps"}, {"x-forwarded-user": "jane", "x-forwarded-email": "jane"}, ""),
        ({"identity_preset": "iap"}, {"x-goog-authenticated-user-id": "accounts.google.com:jane"}, ""),
        ({"trust_incoming_trace": True}, {"baggage": "a=1, user.id = jane;p=1,b=2"}, ""),
        ({}, {"baggage": "user.id=%6aane"}, ""),
        ({"user_id_from": ["query.who"]}, {}, "a=1&who=jane&wh%6f=j%61ne&b"),
        ({"identity_preset": "iap", "user_id_from": ["query.who", "header.X-Who"]}, {"x-who": "jane"}, "who=jane"),
    ],
)
def test_a_pseudonym_holds_wherever_the_user_is_read(
    options: dict[str, Any], headers: dict[str, str], query: str
) -> None:
    """Values captured elsewhere do not reveal it."""
    exchange = Exchange("GET", "/", headers, query_string=query)
    settings = Settings.load(capture_headers=list(headers) or ["Host"], user_id_hmac_key="k", **options)

    stored = describe(TraceRecord(exchange, settings)).all_attributes()

    captured_values = [
        value for key, value in stored.items() if key.startswith("http.request.header.") or key == "url.query"
    ]
    assert len(captured_values) == len(headers) + bool(query)
    assert all(pseudonym("jane", b"k") in str(value) for value in captured_values)
    assert "ane" not in str(stored)


def test_a_pseudonym_holds_in_the_inputs_as_well() -> None:
    """They repeat the query string."""
    trace = ask(user_id_from=["query.q"], user_id_hmac_key="k")

    assert root(trace)["mlflow.spanInputs"]["query"]["q"] == pseudonym("tea", b"k")
    assert "tea" not in str(trace.to_dict())


def test_strict_privacy_is_one_switch() -> None:
    """No bodies, query, headers, address or user agent, whatever the other options; the user is a pseudonym."""
    trace = ask(privacy="strict", capture_response_body=True, capture_headers=["Referer"], client_address="full")

    assert (
        not {"url.query", "client.address", "user_agent.original", "http.request.header.referer"} & root(trace).keys()
    )
    assert (trace.data.spans[0].inputs, trace.data.spans[0].outputs) == (None, None)
    assert len(trace.info.trace_metadata["mlflow.trace.user"]) == 64
    keyed = ask(privacy="strict", user_id_hmac_key="k")
    assert keyed.info.trace_metadata["mlflow.trace.user"] == pseudonym("jane", b"k")


def test_clients_cannot_choose_a_session_that_is_kept() -> None:
    """The share is drawn with a key, which is the same in each process that has it."""
    sessions = [f"s-{number}" for number in range(200)]

    def kept(**options: Any) -> list[str]:
        settings = Settings(sample_ratio=0.5, **options)
        return [each for each in sessions if keeps(settings, each, failed=False, seconds=0.0)]

    assert kept(sample_key="a") == kept(sample_key="a")
    assert kept(sample_key="a") != kept(sample_key="b")
    assert kept(user_id_hmac_key="a") == kept(sample_key="a") != kept()
    assert kept(privacy="strict") == kept()  # its own key differs between processes


@pytest.fixture
def redacting() -> Iterator[None]:
    """Use the process's own redaction of spans, whatever other tests have set."""
    before = list(spans._redactors)
    spans.redact_with(PLAIN.redactor)
    yield
    spans.redact_with(before[0] if before else None)


@pytest.mark.usefixtures("redacting")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_secret_in_the_apps_own_spans_is_replaced(case: Case) -> None:
    """In inputs, outputs, attributes, events, the status, an exception; of child spans and of the request's own."""
    said = json.loads(case.leak) if case.type == "application/json" else case.leak

    def app() -> None:
        mlflow.update_current_trace(request_preview=case.leak)
        mlflow.get_current_active_span().set_attribute("said", said)
        with mlflow.start_span("child") as child:
            child.set_inputs({"said": said})
            child.set_outputs(case.leak)
            child.set_attribute("note", case.leak)
            raise ValueError(case.leak)

    assert case.is_clean(json.dumps(ask(app).to_dict(), ensure_ascii=False))


@pytest.mark.usefixtures("redacting")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_harmless_values_in_the_apps_own_spans_are_unchanged(case: Case) -> None:
    """It is verbatim."""
    said = json.loads(case.twin) if case.type == "application/json" else case.twin

    def app() -> None:
        with mlflow.start_span("child") as child:
            child.set_inputs({"said": said})
            child.set_attribute("note", case.twin)
        raise ValueError(case.twin)

    whole, child = ask(app).data.spans
    assert child.inputs == {"said": said}
    assert child.attributes["note"] == case.twin
    assert whole.events[0].attributes["exception.message"] == case.twin


@pytest.mark.usefixtures("redacting")
def test_properties_of_secrets_in_the_apps_own_spans_are_left() -> None:
    """Truth values and durations."""
    said = {"use_auth": True, "token": None, "time_to_first_token": 0.35, "cost_per_token": 1.5e-05}

    def app() -> None:
        with mlflow.start_span("child") as child:
            child.set_attributes(said)

    attributes = ask(app).data.spans[1].attributes
    assert {key: attributes.get(key) for key in said} == said


@pytest.mark.usefixtures("redacting")
def test_an_exceptions_text_in_an_attribute_is_redacted() -> None:
    """Some libraries set a stack trace as an attribute."""

    def app() -> None:
        with mlflow.start_span("child") as child:
            child.set_attributes({"exception.stacktrace": "…", "api_key": "hunter2"})
            child.set_inputs({"password": "hunter2"})

    assert "hunter2" not in json.dumps(ask(app).to_dict())


def test_redaction_of_spans_can_be_switched_off() -> None:
    """The app's spans are sent unchanged; the request's own inputs never are."""
    before = list(spans._redactors)
    spans.redact_with(None)

    def app() -> None:
        with mlflow.start_span("child") as child:
            child.set_inputs({"password": "hunter2"})

    whole, child = ask(app, b'{"password": "hunter2"}').data.spans
    spans.redact_with(before[0] if before else None)

    assert child.inputs == {"password": "hunter2"}
    assert whole.inputs["password"] == "[redacted]"


def test_a_key_that_cannot_match_is_reported() -> None:
    """It would protect nothing."""
    with pytest.raises(SettingsError, match="redact"):
        Settings.load(redact=["default", "пароль"])


@pytest.mark.parametrize("pattern", ["(", "a*"])
def test_an_invalid_pattern_is_reported(pattern: str) -> None:
    """At start-up, with the reason."""
    with pytest.raises(SettingsError, match="redact_values"):
        Settings.load(redact_values=[pattern])
