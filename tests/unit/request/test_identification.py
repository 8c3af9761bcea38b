"""Ids that become known only while the request is served: which of them are on the trace, and from when on."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from mlflow.entities import Trace

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.capture import fields
from mlflow_middleware.capture.body import Body
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.request.sampling import keeps
from mlflow_middleware.request_trace import RequestTrace, annotate, current, outbound_headers
from mlflow_middleware.settings import Settings
from mlflow_middleware.wsgi import TraceMiddleware as WSGIMiddleware
from tests import messages
from tests.messages import Header, body, http, request, start
from tests.unit.serving import Serving, root_of
from tests.unit.test_identity_sources import token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BY_BODY: dict[str, Any] = {"session_id_from": ["body.chat.id", "header.X-Session-ID"]}
CHAT = json.dumps({"chat": {"id": "c-1"}, "question": "Why?"}).encode()
JSON = (b"content-type", b"application/json")
BY_HEADER = (b"x-session-id", b"by-header")


class Answering:
    """An app that performs steps in order.

    Args:
        steps: ``read``, ``start`` and ``end``, or a function.
        status: The status of its answer.
    """

    def __init__(self, *steps: Any, status: int = 200) -> None:
        self.steps = steps
        self.status = status
        self.seen: list[object] = []

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        for step in self.steps:
            if step == "read":
                await receive()
            elif step == "start":
                own: Any = scope
                own["path_params"] = {"chat_id": "by-path"}
                await send(start(self.status))
            elif step == "end":
                await send(body(b"{}"))
            else:
                self.seen.append(step())


async def ask(app: Any, *headers: Header, content: bytes = CHAT, **options: Any) -> dict[str, str]:
    """Return the response's headers for a request with that body."""
    scope = http("/chats/c-1", JSON, *headers, method="POST")
    sent: list[Any] = await Serving(TraceMiddleware(app, **options), scope, request(content)).end()
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def session_of(trace: Trace) -> str | None:
    """Return the session, which must be the same in tag, metadata and attribute."""
    session: str | None
    (session,) = {
        trace.info.tags.get("mlflow.trace.session"),
        trace.info.trace_metadata.get("mlflow.trace.session"),
        root_of(trace).attributes.get("session.id"),
    }
    return session


# --- bodies ---


@pytest.mark.parametrize("steps", [("read", "start", "end"), ("start", "read", "end"), ("start", "end", "read")])
async def test_a_body_counts_whenever_the_app_reads_it(traces: list[Trace], steps: tuple[str, ...]) -> None:
    """Until its answer is complete; until then the header counts, and stays if the body is not read."""
    await ask(Answering(*steps), BY_HEADER, **BY_BODY)

    assert session_of(traces[0]) == ("by-header" if steps[-1] == "read" else "c-1")


async def test_a_body_that_the_app_does_not_read_is_not_read(traces: list[Trace]) -> None:
    """The message stays with the server."""
    serving = Serving(TraceMiddleware(Answering("start", "end"), **BY_BODY), http("/"), request(CHAT))
    await serving.end()

    assert serving.unread == 1
    assert session_of(traces[0]) is None


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (("read", "start", "end"), {}),
        (("start", "read", "end"), {}),
        (("start", "read", "end"), {"response_headers": {"trace_id": "X-T"}}),
    ],
)
async def test_the_request_id_that_the_client_received_finds_the_trace(
    traces: list[Trace], steps: tuple[str, ...], options: dict[str, Any]
) -> None:
    """A body that is read after the start of the answer changes the id only if the answer has none."""
    headers = await ask(
        Answering(*steps), request_id_from=["body.chat.id"], session_id_from=["body.chat.id"], **options
    )

    (trace,) = traces
    sent_id = headers.get("x-request-id")
    assert (sent_id == "c-1") is (steps[0] == "read")
    assert trace.info.client_request_id == trace.info.tags["client_request_id"] == (sent_id or "c-1")
    assert session_of(trace) == "c-1"


@pytest.mark.parametrize(
    "options", [{"capture_request_body": False}, {"metadata_only": ["/chats/*"]}, {"privacy": "strict"}]
)
async def test_a_body_that_is_not_stored_counts_too(traces: list[Trace], options: dict[str, Any]) -> None:
    """Nothing else of it is on the trace."""
    await ask(Answering("read", "start", "end"), **BY_BODY, **options)

    assert session_of(traces[0]) == "c-1"
    assert root_of(traces[0]).inputs is None
    assert "Why?" not in json.dumps(traces[0].to_dict())
    assert root_of(traces[0]).attributes["http.request.body.size"] == len(CHAT)


async def test_only_the_kept_part_of_a_body_counts(traces: list[Trace]) -> None:
    """The header is the next source."""
    await ask(Answering("read", "start", "end"), BY_HEADER, **BY_BODY, max_body_bytes=12)

    assert session_of(traces[0]) == "by-header"


async def test_secrets_are_found_all_the_same(traces: list[Trace]) -> None:
    """Reading an id does not affect redaction, nor the reverse."""
    content = b'{"token": "t-1", "api_key": "k-1"}'
    await ask(Answering("read", "start", "end"), content=content, session_id_from=["body.token"])

    assert session_of(traces[0]) == "t-1"
    assert root_of(traces[0]).inputs == {"token": "[redacted]", "api_key": "[redacted]"}


async def test_a_conversation_is_kept_or_dropped_by_the_id_in_its_body(traces: list[Trace]) -> None:
    """All of its requests, in every process."""
    options: dict[str, Any] = {"sample_ratio": 0.5, "sample_key": "the key of this test"}
    ids = [f"c-{number}" for number in range(20)]
    for each in ids:
        content = json.dumps({"chat": {"id": each}}).encode()
        await ask(Answering("read", "start", "end"), content=content, **BY_BODY, **options)

    kept = [each for each in ids if keeps(Settings(**options), each, failed=False, seconds=0.0)]
    assert 0 < len(kept) < len(ids)
    assert [session_of(trace) for trace in traces] == kept


async def test_nothing_of_a_body_is_held_for_an_id_after_the_answer() -> None:
    """A pending trace is not larger than its counted size."""
    kept: list[Any] = []

    def keep() -> None:
        trace = current()
        kept.append(trace and trace.exchange)

    with delivery.capturing(lambda trace: None):
        await ask(Answering(keep, "read", "start", "end"), **BY_BODY, capture_request_body=False)

    assert kept[0].request_body.readable == b""


# --- inside the request ---


async def test_ids_known_so_far_go_to_logs_and_the_next_service(traces: list[Trace]) -> None:
    """As soon as the app has read the body."""
    app = Answering(outbound_headers, "read", outbound_headers, "start", "end")
    await ask(app, BY_HEADER, (b"authorization", f"Bearer {token({'sub': 'jane'})}".encode()), **BY_BODY)

    before, after = app.seen
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert (before["X-Session-ID"], after["X-Session-ID"]) == ("by-header", "c-1")
    assert after["baggage"] == "session.id=c-1"


async def test_the_response_has_it_if_configured(traces: list[Trace]) -> None:
    """If it is known by the start."""
    headers = await ask(
        Answering("read", "start", "end"),
        session_id_from=["body.chat.id"],
        request_id_from=["body.question", "path.chat_id"],
        response_headers={"session_id": "X-Session-ID", "request_id": "X-Request-ID"},
    )

    assert headers == {"x-session-id": "c-1", "x-request-id": "by-path"}
    assert traces[0].info.client_request_id == "by-path"


async def test_the_apps_annotation_wins(traces: list[Trace]) -> None:
    """By `annotate`, or through MLflow's own functions, before its body is read and after it."""
    ways: list[Any] = [
        lambda: annotate(session_id="said"),
        lambda: mlflow.update_current_trace(metadata={"mlflow.trace.session": "said"}),
    ]
    for say in ways:
        await ask(Answering(say, "read", "start", "end"), **BY_BODY)
        await ask(Answering("read", outbound_headers, say, "start", "end"), BY_HEADER, **BY_BODY)

    assert [session_of(trace) for trace in traces] == ["said"] * 4


async def test_the_apps_last_annotation_wins(traces: list[Trace]) -> None:
    """Of both functions."""
    say = [
        lambda: annotate(request_id="first", user_id="first"),
        lambda: mlflow.update_current_trace(client_request_id="last", metadata={"mlflow.trace.user": "last"}),
    ]
    await ask(Answering("read", *say, "start", "end"), **BY_BODY)

    assert traces[0].info.client_request_id == "last"
    assert traces[0].info.trace_metadata["mlflow.trace.user"] == "last"
    assert session_of(traces[0]) == "c-1"


async def test_a_source_in_the_framework_may_read_the_ids_itself(traces: list[Trace]) -> None:
    """Like a user that is loaded from a database, which logs its query with the known ids."""
    looks: list[dict[str, str]] = []

    class User:
        @property
        def id(self) -> str:
            looks.append(outbound_headers())
            return "jane"

    async def app(scope: Any, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        scope["user"] = User()
        await Answering("read", "start", "end")(scope, receive, send)

    await ask(app, user_id_from=["scope.user.id"], **BY_BODY)

    assert [each["X-Session-ID"] for each in looks] == ["c-1"]
    assert traces[0].info.tags["mlflow.trace.user"] == "jane"


async def test_spans_of_the_app_change_nothing(traces: list[Trace]) -> None:
    """Nor do its other annotations."""

    def work() -> None:
        with mlflow.start_span("model"):
            mlflow.update_current_trace(tags={"plan": "pro"})

    await ask(Answering(work, "read", work, "start", work, "end"), BY_HEADER, **BY_BODY)

    assert session_of(traces[0]) == "c-1"
    assert traces[0].info.tags["plan"] == "pro"
    assert len(traces[0].data.spans) == 4


@pytest.mark.parametrize(("status", "user"), [(200, "jane"), (403, "jane"), (401, None)])
async def test_a_token_counts_unless_the_app_refuses_it(traces: list[Trace], status: int, user: str | None) -> None:
    """It is not verified here: with the answer 401, anybody may have written it."""
    header = (b"authorization", f"Bearer {token({'sub': 'jane'})}".encode())
    app = Answering(outbound_headers, "start", "end", status=status)
    await ask(app, header, user_id_from=["jwt.sub"])

    assert traces[0].info.tags.get("mlflow.trace.user") == user
    assert root_of(traces[0]).attributes.get("user.id") == user


async def test_mlflows_own_header_is_read(traces: list[Trace]) -> None:
    """If ours is missing."""
    await ask(Answering("start", "end"), (b"mlflow-session-id", b"m-1"))
    await ask(Answering("start", "end"), (b"mlflow-session-id", b"m-1"), BY_HEADER)

    assert [session_of(trace) for trace in traces] == ["m-1", "by-header"]


async def test_nested_sessions(traces: list[Trace]) -> None:
    """From the outermost to the innermost, as one text."""
    await ask(Answering(lambda: annotate(session_id=["chat", "agent"]), "start", "end"))
    await ask(Answering("start", "end"), identify=lambda exchange: Identity(session_id=("a", "b", "c")))

    assert [session_of(trace) for trace in traces] == ["chat/agent", "a/b/c"]


# --- identify ---


class Routed(TraceMiddleware):
    """An app that knows the template of its one route."""

    def route(self, scope: Any) -> str | None:
        return "/chats/{chat_id}"


@pytest.mark.parametrize("options", [{}, {"capture_request_body": False}])
async def test_identify_gets_body_route_and_parameters(traces: list[Trace], options: dict[str, Any]) -> None:
    """By the start of the response."""
    given: list[object] = []

    def identify(exchange: Exchange) -> Identity:
        given.extend([exchange.body, exchange.route, dict(exchange.path_params)])
        return Identity(session_id=exchange.body["chat"]["id"], user_id="auth")

    middleware = Routed(Answering("read", "start", "end"), identify=identify, user_id_from=["header.X-User"], **options)
    scope = http("/chats/c-1", JSON, (b"x-user", b"jane"), method="POST")
    await Serving(middleware, scope, request(CHAT)).end()

    assert given == [json.loads(CHAT), "/chats/{chat_id}", {"chat_id": "by-path"}]
    assert session_of(traces[0]) == "c-1"
    assert traces[0].info.tags["mlflow.trace.user"] == "auth"


async def test_identify_is_called_once_and_other_sources_fill_in_the_rest(traces: list[Trace]) -> None:
    """Also a body that is read after that."""
    calls: list[Exchange] = []

    def identify(exchange: Exchange) -> Identity:
        calls.append(exchange)
        return Identity(user_id="auth")

    await ask(Answering("start", "read", "end"), identify=identify, user_id_from=["body.question"], **BY_BODY)

    assert len(calls) == 1
    assert session_of(traces[0]) == "c-1"
    assert traces[0].info.tags["mlflow.trace.user"] == "auth"


# --- other protocols ---


async def test_a_websocket(traces: list[Trace]) -> None:
    """Ids known when it is accepted are on the traces inside."""

    async def app(scope: Any, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        scope["path_params"] = {"chat_id": "c-1"}
        scope["user"] = {"id": 7}
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        with mlflow.start_span("answer"):
            pass

    middleware = TraceMiddleware(
        app,
        session_id_from=["path.chat_id"],
        user_id_from=["scope.user.id"],
        request_id_from=["cookie.rid", "query.rid"],
    )
    scope = messages.websocket("/ws", (b"cookie", b"sid=1"))
    scope["query_string"] = b"rid=r-1"
    await Serving(middleware, scope).end()

    tags = traces[0].info.tags
    assert tags["mlflow.trace.session"] == traces[0].info.trace_metadata["mlflow.trace.session"] == "c-1"
    assert (tags["mlflow.trace.user"], tags["client_request_id"]) == ("7", "r-1")


def test_wsgi(traces: list[Trace]) -> None:
    """The app reads the body, and the server knows the caller."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        environ["wsgi.input"].read()
        return [b"{}"]

    options: dict[str, Any] = {**BY_BODY, "user_id_from": ["scope.REMOTE_USER"]}
    environ = {
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "REMOTE_USER": "jane",
        "wsgi.input": io.BytesIO(CHAT),
    }
    for _ in WSGIMiddleware(app, **options)(environ, lambda *_: lambda chunk: None):
        pass

    assert session_of(traces[0]) == "c-1"
    assert traces[0].info.tags["mlflow.trace.user"] == "jane"


def test_a_body_that_is_read_in_many_chunks_is_parsed_a_few_times(
    traces: list[Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the app logs in between; an id at its end counts all the same."""
    content, parsed = json.dumps({"question": "Why? " * 1000, "chat": {"id": "c-1"}}).encode(), []

    def fields_of(body: Body | None, *headers: str) -> object:
        parsed.append(body)
        return fields.fields_of(body, *headers)

    monkeypatch.setattr("mlflow_middleware.exchange.fields_of", fields_of)
    headers = {"content-type": "application/json"}
    trace = RequestTrace.open(Exchange("POST", "/", headers), Settings.load(**BY_BODY))
    for place in range(len(content)):
        trace.received(content[place : place + 1])
        assert trace.identity.user_id is None
    trace.response_started(200)
    trace.finish()

    assert session_of(traces[0]) == "c-1"
    assert len(parsed) < 100
