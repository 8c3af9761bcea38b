"""A request's trace, described from its exchange and from the app's annotations."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
import pytest
from mlflow.entities import Trace

from mlflow_middleware import request_trace
from mlflow_middleware._internal import guard
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.request_trace import RequestTrace, annotate, carry, current, outbound_headers
from mlflow_middleware.settings import Settings
from mlflow_middleware.testing import captured_traces
from tests.apps.known import identity
from tests.unit.serving import root_of

KEY = "0123456789abcdef"


def nothing() -> None:
    """Do nothing."""


def handled(
    handler: Callable[[], object] = nothing,
    headers: Mapping[str, str] | None = None,
    *,
    status: int = 200,
    options: dict[str, Any] | None = None,
    **of_exchange: Any,
) -> Trace:
    """Return the trace of one request, whose handler runs inside."""
    exchange = Exchange(**{"method": "GET", "path": "/", "headers": headers or {}, **of_exchange})
    with captured_traces() as traces:
        trace = RequestTrace.open(exchange, Settings.load(**(options or {})))
        trace.activate()
        handler()
        trace.response_started(status)
        trace.last_byte()
        trace.deactivate()
        trace.finish()
        trace.finish()  # which does nothing
    (found,) = traces
    return found


@pytest.fixture(autouse=True)
def nothing_fails() -> Any:
    """Make a failure of tracing fail the test."""
    before = guard.failures.copy()
    yield
    assert guard.failures == before


# --- names and attributes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "route", "name"),
    [
        ("GET", None, "GET"),
        ("GET", "/chats/{chat_id}", "GET /chats/{chat_id}"),
        ("BREW", None, "HTTP"),
        ("BREW", "/pots/{pot_id}", "HTTP /pots/{pot_id}"),
        ("get", "/", "HTTP /"),
    ],
)
def test_its_name(method: str, route: str | None, name: str) -> None:
    """Method and template, of which there are few; never the path, of which there are many."""
    trace = handled(method=method, route=route, path="/chats/123")

    assert (root_of(trace).name, trace.info.tags["mlflow.traceName"]) == (name, name)
    assert trace.info.tags.get("http.route") == route
    assert root_of(trace).attributes.get("http.route") == route


def test_an_unknown_method() -> None:
    """As in OpenTelemetry: the client's method is kept separately."""
    attributes = root_of(handled(method="BREW\n" * 1000)).attributes

    assert attributes["http.request.method"] == "_OTHER"
    assert attributes["http.request.method_original"].startswith("BREW")
    assert "\n" not in attributes["http.request.method_original"]
    assert len(attributes["http.request.method_original"]) < 2000


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        ("example", "example", None),
        ("example:8000", "example", 8000),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("user@example", "192.0.2.2", 80),
        ("a b", "192.0.2.2", 80),
        ("", "192.0.2.2", 80),
    ],
)
def test_the_server_address(host: str, address: str, port: int | None) -> None:
    """The client's host, if it is a valid one; otherwise the server's own."""
    attributes = root_of(handled(headers={"host": host}, server=("192.0.2.2", 80))).attributes

    assert (attributes.get("server.address"), attributes.get("server.port")) == (address, port)


@pytest.mark.parametrize("name", ["url.path", "url.query", "user_agent.original"])
def test_a_clients_values_are_bounded_and_clean(name: str) -> None:
    """Of any length."""
    long = "a\0\x1b" + "b" * 100_000
    attributes = root_of(handled(headers={"user-agent": long}, path=f"/{long}", query_string=long)).attributes

    assert len(attributes[name]) <= 2000
    assert not {"\0", "\x1b"} & set(attributes[name])


def test_captured_headers() -> None:
    """Only those, and no secret."""
    headers = {"x-a": "1", "authorization": "Basic x", "x-b": "2"}
    attributes = root_of(handled(headers=headers, options={"capture_headers": ["X-A", "Authorization"]})).attributes

    assert {key: value for key, value in attributes.items() if key.startswith("http.request.header.")} == {
        "http.request.header.x-a": ["1"],
        "http.request.header.authorization": ["[redacted]"],
    }


@pytest.mark.parametrize(("status", "state"), [(200, "OK"), (404, "ERROR"), (503, "OK")])
def test_statuses_that_are_errors(status: int, state: str) -> None:
    """They are the user's choice."""
    trace = handled(status=status, options={"error_statuses": ["400-404"]})

    assert (trace.info.state, root_of(trace).status.description) == (state, "HTTP 404" if state == "ERROR" else "")


# --- identity ----------------------------------------------------------------------------------------------------


def both() -> None:
    """Set one value through MLflow's function, and another through ours."""
    mlflow.update_current_trace(**identity(user="u-mlflow"))
    annotate(session_id="s-app", tags={"plan": "pro"})


BOTH = {"x-user-id": "u-header", "x-session-id": "s-header"}


@pytest.mark.parametrize(
    ("handler", "identify", "user", "session"),
    [
        (nothing, None, "u-header", "s-header"),
        (nothing, Identity(user_id="u-auth"), "u-auth", "s-header"),
        (lambda: annotate(user_id="u-app"), None, "u-app", "s-header"),
        (lambda: annotate(user_id="u-app"), Identity(user_id="u-auth", session_id="s-auth"), "u-app", "s-auth"),
        (lambda: mlflow.update_current_trace(**identity(session_id="s-mlflow")), None, "u-header", "s-mlflow"),
        (
            lambda: mlflow.update_current_trace(**identity(user="u-mlflow")),
            Identity(session_id="s-auth"),
            "u-mlflow",
            "s-auth",
        ),
        (both, None, "u-mlflow", "s-app"),
    ],
    ids=["headers", "identify", "annotate", "annotate over identify", "MLflow", "MLflow, identify", "MLflow, annotate"],
)
def test_the_order_of_the_sources(
    handler: Callable[[], object], identify: Identity | None, user: str, session: str
) -> None:
    """The app before framework auth before headers; in tag, metadata and attribute alike."""
    trace = handled(handler, BOTH, options={"identify": (lambda exchange: identify) if identify else None})

    for key, attribute, value in (("user", "user.id", user), ("session", "session.id", session)):
        assert trace.info.tags[f"mlflow.trace.{key}"] == value
        assert trace.info.trace_metadata[f"mlflow.trace.{key}"] == value
        assert root_of(trace).attributes[attribute] == value


@pytest.mark.parametrize(
    "handler",
    [nothing, lambda: annotate(user_id="u-header"), lambda: mlflow.update_current_trace(**identity(user="u-header"))],
    ids=["header", "annotate", "MLflow"],
)
def test_a_pseudonym_replaces_the_user(handler: Callable[[], object]) -> None:
    """From any source; the id itself is nowhere."""
    trace = handled(handler, BOTH, options={"user_id_hmac_key": KEY})
    expected = hmac.new(KEY.encode(), b"u-header", hashlib.sha256).hexdigest()

    assert trace.info.tags["mlflow.trace.user"] == expected
    assert trace.info.trace_metadata["mlflow.trace.user"] == expected
    assert "u-header" not in trace.to_json()


def test_an_identify_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers stay, and the request goes on."""

    def identify(exchange: Exchange) -> Identity:
        raise ValueError("no claims")

    monkeypatch.setattr(guard, "failures", counts := type(guard.failures)())
    trace = handled(headers=BOTH, options={"identify": identify})

    assert trace.info.tags["mlflow.trace.user"] == "u-header"
    assert [kind for _, kind in counts] == ["ValueError"]
    monkeypatch.undo()


# --- the app's annotations ---------------------------------------------------------------------------------------


def test_annotations_become_text() -> None:
    """It is safe to store; a later one beats an earlier one."""

    def handler() -> None:
        annotate(tags={"plan": "free", "count": 3, "odd": "a\0b", "none": None}, metadata={"m": 1.5})
        annotate(tags={"plan": "pro"}, request_id="r-early", user_id="u-early")
        annotate(request_id="r-app", user_id="u-app")

    trace = handled(handler, {"x-request-id": "r-header"}, options={"tags": {"plan": "default", "fixed": "yes"}})

    tags = trace.info.tags
    assert (tags["plan"], tags["count"], tags["fixed"], "none" in tags) == ("pro", "3", "yes", False)
    assert tags["odd"] == "a\N{REPLACEMENT CHARACTER}b"
    assert trace.info.trace_metadata["m"] == "1.5"
    assert (trace.info.client_request_id, tags["client_request_id"]) == ("r-app", "r-app")
    assert tags["mlflow.trace.user"] == "u-app"


def test_outside_of_a_request(traces: list[Trace]) -> None:
    """Nothing happens, and no ids are known."""
    annotate(user_id="jane", tags={"a": "b"})

    assert current() is None
    assert outbound_headers() == {}
    assert traces == []


def test_another_thread_is_outside() -> None:
    """A thread that is started without the context does not know the request."""
    seen: list[object] = []

    def handler() -> None:
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
        seen.append(current())

    handled(handler)

    assert seen[0] is None
    assert isinstance(seen[1], RequestTrace)


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_pool(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def in_executor(work: Callable[[], object]) -> None:
    async def handler() -> None:
        await asyncio.get_running_loop().run_in_executor(None, work)

    asyncio.run(handler())


@pytest.mark.parametrize("run", [in_thread, in_pool, in_executor])
def test_a_request_is_carried_to_another_thread(run: Callable[[Callable[[], object]], None]) -> None:
    """Annotations and spans of the function belong to it."""

    def work() -> None:
        annotate(tags={"plan": "pro"})
        with mlflow.start_span("work"):
            pass

    trace = handled(lambda: run(carry(work)))

    assert [span.name for span in trace.data.spans] == ["GET", "work"]
    assert trace.info.tags["plan"] == "pro"


def test_a_carried_function_runs_in_several_threads_at_once() -> None:
    """With its arguments, results and exceptions; no call sees the context variables of another."""
    together = threading.Barrier(4, timeout=30)

    def work(number: int) -> int:
        together.wait()
        with mlflow.start_span(f"work-{number}"):
            if number == 3:
                raise ValueError(number)
            return number + 1

    def handler() -> None:
        carried = carry(work)
        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(carried, number) for number in range(4)]
        assert [each.result() for each in done[:3]] == [1, 2, 3]
        with pytest.raises(ValueError, match="3"):
            done[3].result()

    trace = handled(handler)
    root = root_of(trace)

    parents = {span.name: span.parent_id for span in trace.data.spans if span is not root}
    assert parents == {f"work-{number}": root.span_id for number in range(4)}


def test_an_annotation_outside_of_a_request_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """At debug level, with the calling line and the remedy."""
    request_trace._log_ignored_annotation.cache_clear()
    with caplog.at_level("DEBUG", logger="mlflow_middleware"):
        annotate(user_id="jane")
        annotate(user_id="jane")

    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "carry" in caplog.text
    assert "test_an_annotation_outside" in caplog.text


def test_headers_for_the_next_service() -> None:
    """The ids, unchanged, and the current span."""
    seen: list[dict[str, str]] = []

    def handler() -> None:
        seen.append(outbound_headers())
        with mlflow.start_span("call"):
            seen.append(outbound_headers())

    headers = {**BOTH, "x-request-id": "r-1"}
    trace = handled(handler, headers, options={"user_id_hmac_key": KEY})

    root, child = trace.data.spans
    for got, span in zip(seen, (root, child), strict=True):
        trace_id = trace.info.trace_id.removeprefix("tr-")
        assert got == {
            "X-Request-ID": "r-1",
            "X-Session-ID": "s-header",
            "X-User-ID": "u-header",
            "baggage": "session.id=s-header,user.id=u-header",
            "traceparent": f"00-{trace_id}-{span.span_id}-01",
        }


def test_an_id_that_no_client_could_send_is_left_out() -> None:
    """HTTP clients reject such headers."""
    seen: list[dict[str, str]] = []
    handled(lambda: seen.append(outbound_headers()), {"x-user-id": "jos\u00e9"})

    assert "X-User-ID" not in seen[0]
    assert "X-Request-ID" in seen[0]


# --- the route and an exception ---


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/chats/{id}", "GET /chats/{id}"),
        ("chats/<int:n>", "GET /chats/<int:n>"),
        ("/a\x00b\nc", "GET /a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"),
        ("", "GET /framework"),
        (None, "GET /framework"),
        ("/" + "x" * 999, "GET /" + "x" * 249),
    ],
)
def test_the_app_names_the_route(given: Any, name: str) -> None:
    """It beats the framework's route; it is sanitized and bounded, and has a slash in front."""
    found = handled(lambda: annotate(route=given), route="/framework")

    assert found.data.spans[0].name == name
    assert found.info.tags["http.route"] == name.removeprefix("GET ") == root_of(found).attributes["http.route"]


@pytest.mark.parametrize("given", [7, b"/x", object()])
def test_a_route_that_is_no_text_is_none(given: Any) -> None:
    """Nothing is raised into the app."""
    before = guard.failures.copy()
    found = handled(lambda: annotate(route=given, tags={"a": "b"}), route="/framework")

    assert (found.data.spans[0].name, found.info.tags["a"]) == ("GET /framework", "b")
    assert sum((guard.failures - before).values()) == 1
    guard.failures.clear()
    guard.failures.update(before)


def test_the_app_reports_an_exception() -> None:
    """It is an error of the trace, with any status, and recorded once."""
    error = ValueError("the model is unavailable")

    def handler() -> None:
        annotate(exception=error)
        annotate(exception=error)

    found = handled(handler)

    assert found.info.state == "ERROR"
    assert [event.attributes["exception.message"] for event in root_of(found).events] == ["the model is unavailable"]


def test_a_route_and_an_exception_outside_of_a_request() -> None:
    """They do nothing."""
    annotate(route="/x", exception=ValueError("no"))
