"""The ASGI middleware: the server gets the app's own messages, and the trace describes the request."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from typing import Any

import mlflow
import pytest
from asgiref.typing import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseTrailersEvent,
    HTTPScope,
    LifespanScope,
    Scope,
    WebSocketScope,
)
from mlflow.entities import Trace

from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.identity import Identity
from mlflow_middleware.request import leaving
from mlflow_middleware.request_trace import annotate, current
from mlflow_middleware.settings import SettingsError
from tests import messages
from tests.messages import body, http, other, request, start
from tests.unit.serving import Serving, root_of

JSON, TEXT, EVENTS = [(b"content-type", kind) for kind in (b"application/json", b"text/plain", b"text/event-stream")]
QUESTION = json.dumps({"messages": [{"role": "user", "content": "Where?"}], "api_key": "k-1"}).encode()
ANSWER = b'{"choices": [{"message": {"role": "assistant", "content": "There."}}]}'
OURS = (b"x-request-id", b"x-session-id", b"x-user-id", b"x-mlflow-trace-id")
TRAILERS: HTTPResponseTrailersEvent = {
    "type": "http.response.trailers",
    "headers": [(b"x-checksum", b"1")],
    "more_trailers": False,
}


def saying(*said: ASGISendEvent) -> ASGI3Application:
    """Return an app that reads the whole request, and answers with these messages."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while True:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        for each in said:
            await send(each)

    return app


async def ask(app: ASGI3Application, scope: HTTPScope, *pieces: bytes) -> list[Any]:
    """Return the messages that a server gets from an app that received a whole request."""
    given = pieces or (b"",)
    last = len(given) - 1
    return await Serving(app, scope, *[request(each, number < last) for number, each in enumerate(given)]).end()


def without_ours(sent: list[Any]) -> list[Any]:
    """Return messages without the headers that the middleware adds."""
    return [
        {**each, "headers": [pair for pair in each["headers"] if pair[0] not in OURS]} if "headers" in each else each
        for each in sent
    ]


def headers_of(sent: list[Any]) -> dict[str, str]:
    """Return the response's headers."""
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


# --- answers -----------------------------------------------------------------------------------------------------


async def test_a_plain_answer(traces: list[Trace]) -> None:
    """The app's messages arrive unchanged, with our headers after its own; the trace has all of the request."""
    said: list[ASGISendEvent] = [start(200, JSON, (b"x-own", b"1")), body(ANSWER)]
    headers = [JSON, (b"host", b"example:8000"), (b"x-user-id", b"jane"), (b"x-session-id", b"s-1")]
    scope = http("/chats/1", *headers, (b"x-request-id", b"r-1"), method="POST", query=b"a=1&token=t")
    sent = await ask(TraceMiddleware(saying(*said), tags={"plan": "pro"}), scope, QUESTION)

    (trace,) = traces
    assert without_ours(sent) == said
    assert sent[1] is said[1]
    assert list(headers_of(sent)) == ["content-type", "x-own", "x-request-id", "x-mlflow-trace-id"]
    assert headers_of(sent)["x-mlflow-trace-id"] == trace.info.trace_id
    assert (trace.info.client_request_id, trace.info.state) == ("r-1", "OK")
    assert trace.info.tags == {
        "mlflow.traceName": "POST",
        "mlflow.trace.user": "jane",
        "mlflow.trace.session": "s-1",
        "client_request_id": "r-1",
        "http.status_code": "200",
        "plan": "pro",
    }
    assert trace.info.trace_metadata["mlflow.trace.user"] == "jane"
    assert trace.info.trace_metadata["mlflow.trace.session"] == "s-1"
    assert (trace.info.request_preview, trace.info.response_preview) == ("Where?", "There.")


async def test_the_root_span_of_a_plain_answer(traces: list[Trace]) -> None:
    """One span has the bodies and OpenTelemetry's names for the rest; secrets are replaced."""
    scope = http("/chats/1", JSON, (b"host", b"example:8000"), method="POST", query=b"a=1&token=t")
    await ask(TraceMiddleware(saying(start(200, JSON), body(ANSWER))), scope, QUESTION)

    (root,) = traces[0].data.spans
    assert (root.name, root.span_type, str(root.status.status_code)) == ("POST", "CHAIN", "SpanStatusCode.OK")
    assert root.inputs == {
        "messages": [{"role": "user", "content": "Where?"}],
        "api_key": "[redacted]",
        "query": {"a": "1", "token": "[redacted]"},
    }
    assert root.outputs == json.loads(ANSWER)
    assert {key: value for key, value in root.attributes.items() if not key.startswith("mlflow.")} == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.request.body.size": len(QUESTION),
        "http.response.body.size": len(ANSWER),
        "url.path": "/chats/1",
        "url.query": "a=1&token=[redacted]",
        "url.scheme": "http",
        "server.address": "example",
        "server.port": 8000,
        "client.address": "192.0.2.1",
        "network.protocol.version": "1.1",
    }


async def test_a_stream_is_passed_on_piece_by_piece(traces: list[Trace]) -> None:
    """Nothing is buffered: the app makes the next piece when the server has the last one."""
    taken = asyncio.Semaphore(0)

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200, EVENTS))
        for number in range(30):
            await send(body(f"data: token {number}\n\n".encode(), True))
            await taken.acquire()
        await send(body())

    serving = Serving(TraceMiddleware(app), http())
    await serving.take()
    for number in range(30):
        assert await serving.take() == body(f"data: token {number}\n\n".encode(), True)
        assert traces == []
        taken.release()

    assert await serving.end() == [body()]
    root = root_of(traces[0])
    assert root.outputs == [f"token {number}" for number in range(30)]
    assert root.attributes["http.response.chunks"] == 30
    first, last = (root.attributes[f"http.response.time_to_{which}_byte"] for which in ("first", "last"))
    assert 0 <= first <= last


async def test_head_has_no_outputs(traces: list[Trace]) -> None:
    """A server sends no body, even if the app does."""
    sent = await ask(TraceMiddleware(saying(start(200, TEXT), body(b"whole")), include="head"), http(method="HEAD"))

    assert sent[1] == body(b"whole")
    assert root_of(traces[0]).name == "HEAD"
    assert root_of(traces[0]).outputs is None
    assert "http.response.body.size" not in root_of(traces[0]).attributes


@pytest.mark.parametrize(
    "said",
    [
        [start(200, TEXT), other("http.response.pathsend", path="/etc/hostname")],
        [start(200), other("http.response.zerocopysend", file=7, more_body=True), body(b"end")],
        [other("http.response.early_hint", links=[b"</a>"]), start(200), body(b"end")],
        [start(200), other("http.response.push", path="/a", headers=[]), body(b"end")],
        [other("x.y", z=[1]), start(200), body(b"end", True), other("x.y"), body()],
        [other("http.response.start", status=204), other("http.response.body")],
    ],
    ids=lambda said: said[0]["type"] + "+" + said[1]["type"],
)
async def test_server_extensions_pass_unchanged(traces: list[Trace], said: list[Any]) -> None:
    """They are the same objects, in order; and all of it is one complete trace."""
    sent = await ask(TraceMiddleware(saying(*said)), http())

    assert [each["type"] for each in sent] == [each["type"] for each in said]
    assert all(got is own for got, own in zip(sent, said, strict=True) if own["type"] != "http.response.start")
    assert [trace.info.state for trace in traces] == ["OK"]
    assert root_of(traces[0]).attributes["http.response.status_code"] in (200, 204)


@pytest.mark.parametrize(
    "end",
    [
        [other("http.response.pathsend", path="/x")],
        [body(b"a", True), body()],
        [body(b"a")],
        [other("http.response.body")],
    ],
    ids=["path", "pieces", "whole", "empty"],
)
async def test_the_trace_ends_with_the_last_byte(traces: list[Trace], end: list[Any]) -> None:
    """Not before, and whatever work the app still has to do."""
    may_end = asyncio.Event()

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200))
        for each in end:
            assert traces == []
            await send(each)
        await may_end.wait()

    serving = Serving(TraceMiddleware(app), http())
    for _ in range(len(end) + 1):
        await serving.take()
    assert len(traces) == 1
    may_end.set()

    assert await serving.end() == []
    assert len(traces) == 1


async def test_trailers_end_a_response_that_announces_them(traces: list[Trace]) -> None:
    """The last byte of the body does not."""
    said: list[ASGISendEvent] = [start(200, trailers=True), body(b"a"), {**TRAILERS, "more_trailers": True}, TRAILERS]
    counts = []

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        for each in said:
            await send(each)
            counts.append(len(traces))

    sent = await ask(TraceMiddleware(app), http())

    assert without_ours(sent) == said
    assert counts == [0, 0, 0, 1]
    assert root_of(traces[0]).outputs == "a"


async def test_the_apps_own_header_list_stays_as_it_is(traces: list[Trace]) -> None:
    """An app may send the same list again; our headers are in the server's message only. It may also be an iterator."""
    own = [TEXT]
    middleware = TraceMiddleware(saying({**start(200), "headers": own}, body(b"a")))
    sent = [await ask(middleware, http()) for _ in range(2)]

    assert own == [TEXT]
    assert {len(each[0]["headers"]) for each in sent} == {3}
    sent[0] = await ask(TraceMiddleware(saying({**start(200), "headers": iter([TEXT])}, body(b"a"))), http())
    assert sent[0][0]["headers"][0] == TEXT


# --- failures ----------------------------------------------------------------------------------------------------


async def test_an_exception_before_the_response(traces: list[Trace]) -> None:
    """It reaches the server, and the trace has it as the answer 500 that the server makes of it."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        raise ValueError("no model")

    serving = Serving(TraceMiddleware(app), http("/", JSON, method="POST"), request(QUESTION))
    with pytest.raises(ValueError, match="no model"):
        await serving.end()

    assert serving.sent == []
    (trace,) = traces
    root = root_of(trace)
    assert (trace.info.state, trace.info.tags["http.status_code"]) == ("ERROR", "500")
    assert root.attributes["error.type"] == "ValueError"
    assert (root.events[0].name, root.events[0].attributes["exception.message"]) == ("exception", "no model")
    assert root.inputs["api_key"] == "[redacted]"
    assert root.outputs is None


async def test_an_exception_in_the_middle_of_a_stream(traces: list[Trace]) -> None:
    """The client's status stays, and the chunks that it received."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200, TEXT))
        await send(body(b"begun", True))
        raise RuntimeError("the model went away")

    serving = Serving(TraceMiddleware(app), http())
    with pytest.raises(RuntimeError, match="went away"):
        await serving.end()

    assert serving.sent[1:] == [body(b"begun", True)]
    (trace,) = traces
    assert (trace.info.state, trace.info.tags["http.status_code"]) == ("ERROR", "200")
    assert root_of(trace).outputs == "begun"
    assert "http.client_disconnected" not in root_of(trace).attributes


@pytest.mark.parametrize(("status", "state"), [(200, "OK"), (404, "OK"), (500, "ERROR"), (503, "ERROR")])
async def test_the_status_decides(traces: list[Trace], status: int, state: str) -> None:
    """By default, the server's own errors are errors."""
    await ask(TraceMiddleware(saying(start(status), body())), http())

    assert (traces[0].info.state, traces[0].info.tags["http.status_code"]) == (state, str(status))


async def test_a_client_that_disconnects(traces: list[Trace]) -> None:
    """This is an outcome, no error; the chunks that it received are kept."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200, TEXT))
        await send(body(b"partly", True))
        assert (await receive())["type"] == "http.disconnect"

    serving = Serving(TraceMiddleware(app), http(), {"type": "http.disconnect"})
    await serving.end()

    root = root_of(traces[0])
    assert (traces[0].info.state, root.outputs) == ("OK", "partly")
    assert root.attributes["http.client_disconnected"] is True


async def test_a_message_received_ahead_is_passed_on(traces: list[Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is asked for a disconnect; an app that reads its request after the answer misses nothing."""
    monkeypatch.setattr(leaving, "ASK_AFTER", 0)
    read: list[Any] = []

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200, TEXT))
        await send(body(b"whole"))
        read.extend([await receive(), await receive()])

    await Serving(TraceMiddleware(app), http(), request(b""), {"type": "http.disconnect"}).end()

    assert read == [request(b""), {"type": "http.disconnect"}]
    assert root_of(traces[0]).attributes["http.client_disconnected"] is True


@pytest.mark.parametrize(
    "header", [(b"expect", b"100-continue"), (b"content-length", b"9"), (b"transfer-encoding", b"chunked")]
)
async def test_a_body_that_the_app_refuses_is_not_requested(
    traces: list[Trace], monkeypatch: pytest.MonkeyPatch, header: tuple[bytes, bytes]
) -> None:
    """A request for it would make a server read on, or tell the client to continue."""
    monkeypatch.setattr(leaving, "ASK_AFTER", 0)
    serving = Serving(TraceMiddleware(saying_at_once(start(413), body(b"no"))), http("/", header), request(b"x", True))
    await serving.end()

    assert serving.unread == 1


@pytest.mark.parametrize("ends", ["cancelled", "raises", "raises when cancelled"])
async def test_a_server_that_refuses_to_be_asked(
    traces: list[Trace], monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Its answer is complete all the same, and nothing is logged."""
    monkeypatch.setattr(leaving, "ASK_AFTER", 0)
    sent: list[ASGISendEvent] = []
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context))

    async def receive() -> ASGIReceiveEvent:
        if ends == "cancelled":
            raise asyncio.CancelledError
        if ends == "raises":
            raise RuntimeError("asked too often")
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("left")

    async def send(message: ASGISendEvent) -> None:
        sent.append(message)

    await TraceMiddleware(saying_at_once(start(200), body(b"whole")))(http(), receive, send)
    await asyncio.sleep(0)
    gc.collect()

    assert sent[1:] == [body(b"whole")]
    assert (len(traces), logged) == (1, [])


async def test_an_app_that_listens_itself_is_the_only_listener(
    traces: list[Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two listeners would take messages from each other."""
    monkeypatch.setattr(leaving, "ASK_AFTER", 0)
    heard: list[Any] = []

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        listening: asyncio.Task[Any] = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await send(start(200, TEXT))
        await send(body(b"whole"))
        heard.append(await listening)

    serving = Serving(TraceMiddleware(app), http(), request())
    for _ in range(2):
        await serving.take()
    await serving.give({"type": "http.disconnect"})
    await serving.end()

    assert heard == [{"type": "http.disconnect"}]
    assert "http.client_disconnected" not in root_of(traces[0]).attributes


def saying_at_once(*said: ASGISendEvent) -> ASGI3Application:
    """Return an app that answers with these messages without reading the request."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        for each in said:
            await send(each)

    return app


async def test_a_client_that_has_its_answer_may_disconnect(traces: list[Trace]) -> None:
    """The end of the connection after the last byte is normal."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200, TEXT))
        await send(body(b"whole"))
        await receive()

    await Serving(TraceMiddleware(app), http(), {"type": "http.disconnect"}).end()

    assert "http.client_disconnected" not in root_of(traces[0]).attributes


async def test_a_server_that_cannot_send(traces: list[Trace]) -> None:
    """Its OSError reaches the app, and counts as a disconnect, also at the last byte."""

    async def broken(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def refuse(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.body":
                raise BrokenPipeError
            await send(message)

        await TraceMiddleware(saying(start(200, TEXT), body(b"whole")))(scope, receive, refuse)

    with pytest.raises(BrokenPipeError):
        await ask(broken, http())

    assert root_of(traces[0]).attributes["http.client_disconnected"] is True
    assert (traces[0].info.state, root_of(traces[0]).outputs) == ("OK", None)


@pytest.mark.parametrize("path", ["/", "/health"], ids=["traced", "excluded"])
@pytest.mark.parametrize("scope", [http, messages.websocket])
def test_an_end_in_another_context(
    scope: Callable[[str], Any], path: str, traces: list[Trace], caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that nothing waits for any more is closed wherever that is noticed: no line is logged."""
    app = TraceMiddleware(saying())
    connection = app(scope(path), Waiting, None).__await__()
    copy_context().run(next, connection)
    copy_context().run(connection.close)

    assert caplog.messages == []
    assert current() is None


class Waiting:
    """A message that never arrives."""

    def __await__(self) -> Iterator[None]:
        yield


async def test_a_cancelled_app(traces: list[Trace]) -> None:
    """Servers cancel requests without a client."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200, TEXT))
        await send(body(b"partly", True))
        await asyncio.Event().wait()

    serving = Serving(TraceMiddleware(app), http())
    await serving.take()
    await serving.take()
    await serving.cancel()

    assert (traces[0].info.state, root_of(traces[0]).outputs) == ("OK", "partly")
    assert root_of(traces[0]).attributes["http.client_disconnected"] is True


# --- requests that are not traced --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"exclude": ["/ping*"]}])
async def test_an_excluded_path_is_silent(traces: list[Trace], options: dict[str, Any]) -> None:
    """It has no trace, no headers of ours, and none of the spans that the app opens inside."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        with mlflow.start_span("inside"):
            assert current() is None
        await saying(start(200), body(b"fine"))(scope, receive, send)

    path = "/pings" if options else "/health"
    assert await ask(TraceMiddleware(app, **options), http(path)) == [start(200), body(b"fine")]
    assert traces == []


async def test_disabled(traces: list[Trace]) -> None:
    """The app's messages pass, and its own spans are its own traces."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        with mlflow.start_span("its own"):
            pass
        await saying(start(200), body(b"fine"))(scope, receive, send)

    assert await ask(TraceMiddleware(app, enabled=False), http()) == [start(200), body(b"fine")]
    assert [trace.data.spans[0].name for trace in traces] == ["its own"]
    assert "client_request_id" not in traces[0].info.tags


async def test_a_request_that_is_sampled_out(traces: list[Trace]) -> None:
    """It has its id all the same; its spans are dropped with it."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        with mlflow.start_span("inside"):
            await saying(start(200), body(b"fine"))(scope, receive, send)

    sent = await ask(TraceMiddleware(app, sample_ratio=0.0), http("/", (b"x-request-id", b"r-1")))

    assert headers_of(sent)["x-request-id"] == "r-1"
    assert traces == []


async def test_an_error_is_kept_with_any_ratio(traces: list[Trace]) -> None:
    """By default."""
    await ask(TraceMiddleware(saying(start(500), body()), sample_ratio=0.0), http())

    assert [trace.info.state for trace in traces] == ["ERROR"]


async def test_the_lifespan_passes_through(traces: list[Trace]) -> None:
    """Start and end, in the app's own messages."""
    scope: LifespanScope = {"type": "lifespan", "asgi": messages.ASGI, "state": {}}

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["index"] = "loaded"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})

    serving = Serving(TraceMiddleware(app), scope, {"type": "lifespan.startup"})
    assert await serving.take() == {"type": "lifespan.startup.complete"}
    assert scope["state"] == {"index": "loaded"}
    await serving.give({"type": "lifespan.shutdown"})

    assert await serving.end() == [{"type": "lifespan.shutdown.complete"}]
    assert traces == []


async def test_a_lifespan_that_fails(traces: list[Trace]) -> None:
    """An app without one raises, which the server recognizes; one that cannot start reports it."""
    scope: LifespanScope = {"type": "lifespan", "asgi": messages.ASGI}
    failed: ASGISendEvent = {"type": "lifespan.startup.failed", "message": "no index"}

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        raise NotImplementedError

    assert await Serving(TraceMiddleware(saying(failed)), scope, {"type": "lifespan.startup"}).end() == [failed]
    with pytest.raises(NotImplementedError):
        await Serving(TraceMiddleware(app), scope, {"type": "lifespan.startup"}).end()


@pytest.mark.parametrize("scope", [{"type": "x"}, {"type": "http.odd", "path": "/"}])
async def test_another_protocol_passes_through(traces: list[Trace], scope: Any) -> None:
    """The app gets the server's own callables."""
    seen: list[object] = []

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        seen.extend((scope, receive, send))

    async def receive() -> Any: ...

    async def send(message: ASGISendEvent) -> None: ...

    await TraceMiddleware(app)(scope, receive, send)

    assert [each is own for each, own in zip(seen, (scope, receive, send), strict=True)] == [True] * 3
    assert traces == []


# --- a websocket -------------------------------------------------------------------------------------------------


async def test_a_websocket_gives_its_identity_to_the_traces_inside(traces: list[Trace]) -> None:
    """It has no trace of its own; each message passes as the same object."""
    said: list[ASGISendEvent] = [
        {"type": "websocket.accept", "subprotocol": None, "headers": []},
        {"type": "websocket.send", "text": "There.", "bytes": None},
    ]

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        await send(said[0])
        for _ in range(2):
            heard = await receive()
            assert heard["type"] == "websocket.receive"
            annotate(tags={"turn": heard["text"]})
            with mlflow.start_span("answer") as span:
                span.set_inputs(heard["text"])
            await send(said[1])

    scope = messages.websocket("/ws", (b"x-user-id", b"jane"), (b"x-session-id", b"s-1"), (b"x-request-id", b"r-1"))
    serving = Serving(TraceMiddleware(app, tags={"plan": "pro"}), scope, {"type": "websocket.connect"})
    for text in ("Where?", "When?"):
        await serving.give({"type": "websocket.receive", "text": text, "bytes": None})
    sent = await serving.end()

    assert [each is own for each, own in zip(sent, [*said, said[1]], strict=True)] == [True] * 3
    assert [(root_of(trace).name, root_of(trace).inputs) for trace in traces] == [
        ("answer", "Where?"),
        ("answer", "When?"),
    ]
    for trace in traces:
        assert (trace.info.client_request_id, trace.info.tags["client_request_id"]) == ("r-1", "r-1")
        assert (trace.info.tags["mlflow.trace.user"], trace.info.tags["mlflow.trace.session"]) == ("jane", "s-1")
        assert trace.info.trace_metadata["mlflow.trace.session"] == "s-1"
        assert (trace.info.tags["plan"], trace.info.tags["turn"]) == ("pro", root_of(trace).inputs)


async def test_framework_auth_is_read_when_a_websocket_is_accepted(traces: list[Trace]) -> None:
    """It beats the header for traces opened from there on; before, no login has been checked."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        opened("before")
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        opened("after")

    middleware = TraceMiddleware(app, identify=lambda exchange: Identity(user_id="joe"))
    await Serving(middleware, messages.websocket("/ws", (b"x-user-id", b"jane"))).end()

    assert [trace.info.tags["mlflow.trace.user"] for trace in traces] == ["jane", "joe"]


async def test_a_websocket_that_breaks(traces: list[Trace]) -> None:
    """The app's exception reaches the server; traces opened afterwards have none of its identity."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        raise ValueError("no")

    scope: WebSocketScope = messages.websocket("/ws", (b"x-user-id", b"jane"))
    with pytest.raises(ValueError, match="no"):
        await TraceMiddleware(app)(scope, None, None)
    with mlflow.start_span("afterwards"):
        pass

    assert [root_of(trace).name for trace in traces] == ["afterwards"]
    assert "mlflow.trace.user" not in traces[0].info.tags


# --- the request's body ------------------------------------------------------------------------------------------


async def test_the_body_is_seen_as_the_app_reads_it(traces: list[Trace]) -> None:
    """Parts that the app does not read are not read."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert await receive() == request(b"read ", True)
        await send(start(200))
        await send(body())

    serving = Serving(TraceMiddleware(app), http("/", TEXT, method="POST"), request(b"read ", True), request(b"left"))
    await serving.end()

    assert serving.unread == 1
    assert root_of(traces[0]).inputs == "read "
    assert root_of(traces[0]).attributes["http.request.body.size"] == 5


async def test_a_body_that_is_never_read(traces: list[Trace]) -> None:
    """It stays with the server."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200))
        await send(body())

    serving = Serving(TraceMiddleware(app), http("/", TEXT, method="POST"), request(b"left"))
    await serving.end()

    assert serving.unread == 1
    assert root_of(traces[0]).inputs is None


async def test_a_body_in_pieces(traces: list[Trace]) -> None:
    """A character may start in one and end in the next; a message may omit its body."""
    pieces = ['{"q": "é'.encode()[:-1], 'é"}'.encode()[1:]]
    given = [request(pieces[0], True), other("http.request", more_body=True), request(pieces[1])]
    await Serving(TraceMiddleware(saying(start(200), body())), http("/", JSON, method="POST"), *given).end()

    assert root_of(traces[0]).inputs == {"q": "é"}


@pytest.mark.parametrize(
    "options", [{"capture_request_body": False, "capture_response_body": False}, {"metadata_only": ["/chats/*"]}]
)
async def test_bodies_that_are_not_captured(traces: list[Trace], options: dict[str, Any]) -> None:
    """They are counted, not kept."""
    middleware = TraceMiddleware(saying(start(200, JSON), body(ANSWER)), **options)
    await ask(middleware, http("/chats/1", JSON, method="POST"), QUESTION)

    root = root_of(traces[0])
    assert (root.inputs, root.outputs) == (None, None)
    assert root.attributes["http.request.body.size"] == len(QUESTION)
    assert root.attributes["http.response.body.size"] == len(ANSWER)


# --- identity ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [("r-1", True), ("", False), ("a b", False), ("x" * 129, False), ("é", False), ("<script>", False)],
)
async def test_a_request_id_is_echoed_or_made(traces: list[Trace], given: str, kept: bool) -> None:
    """A harmful id is replaced by a new one; the client receives it."""
    scope = http("/", (b"x-request-id", given.encode()))
    sent = await ask(TraceMiddleware(saying(start(200), body())), scope)

    echoed = headers_of(sent)["x-request-id"]
    assert (echoed == given) is kept
    assert kept or (len(echoed) == 32 and echoed.isalnum())
    assert (traces[0].info.client_request_id, traces[0].info.tags["client_request_id"]) == (echoed, echoed)


async def test_ids_from_headers_with_other_names(traces: list[Trace]) -> None:
    """In the request, and in the response."""
    options: dict[str, Any] = {
        "request_id_header": "X-Correlation-ID",
        "session_id_header": "X-Chat-ID",
        "response_headers": {"request_id": "X-Correlation-ID", "session_id": "X-Chat-ID"},
    }
    scope = http("/", (b"x-correlation-id", b"c-1"), (b"x-chat-id", b"s-9"), (b"x-request-id", b"r-1"))
    sent = await ask(TraceMiddleware(saying(start(200), body()), **options), scope)

    assert headers_of(sent) == {"x-correlation-id": "c-1", "x-chat-id": "s-9"}
    assert traces[0].info.client_request_id == "c-1"
    assert traces[0].info.tags["mlflow.trace.session"] == "s-9"


@pytest.mark.parametrize("name", [b"x-request-id", b"X-Request-ID"])
async def test_a_header_that_the_app_sets_is_the_apps(traces: list[Trace], name: bytes) -> None:
    """In any case; there is no second one."""
    sent = await ask(TraceMiddleware(saying(start(200, (name, b"mine")), body())), http())

    assert [pair for pair in sent[0]["headers"] if pair[0].lower() == b"x-request-id"] == [(name, b"mine")]


async def test_a_browser_may_read_our_headers(traces: list[Trace]) -> None:
    """Beside the app's exposed headers, for a request with an Origin."""
    said = start(200, (b"access-control-expose-headers", b"X-Own"))
    scope = http("/", (b"origin", b"https://example.org"))
    sent = await ask(TraceMiddleware(saying(said, body())), scope)

    assert headers_of(sent)["access-control-expose-headers"] == "X-Own, X-Request-ID, X-MLflow-Trace-ID"


async def test_framework_auth_is_read_when_the_response_starts(traces: list[Trace]) -> None:
    """It beats the header, and ``annotate`` beats it; it is read once, with the current scope."""
    asked: list[Any] = []

    def identify(exchange: Any) -> Identity:
        asked.append(exchange.request)
        return Identity(user_id=exchange.request["user"], session_id="s-of-auth")

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        known: Any = scope
        known["user"] = "joe"
        annotate(session_id="s-of-app")
        await saying(start(200), body(b"a", True), body())(scope, receive, send)

    scope = http("/", (b"x-user-id", b"jane"))
    await ask(TraceMiddleware(app, identify=identify), scope)

    assert [each is scope for each in asked] == [True]
    tags = traces[0].info.tags
    assert (tags["mlflow.trace.user"], tags["mlflow.trace.session"]) == ("joe", "s-of-app")


async def test_framework_auth_is_read_also_if_no_response_starts(traces: list[Trace]) -> None:
    """A request that fails has a user, too."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        await ask(TraceMiddleware(app, identify=lambda exchange: Identity(user_id="joe")), http())

    assert traces[0].info.tags["mlflow.trace.user"] == "joe"


# --- spans -------------------------------------------------------------------------------------------------------


def opened(name: str) -> None:
    """Open a span of the app's own."""
    with mlflow.start_span(name):
        pass


async def in_a_task() -> None:
    await asyncio.create_task(asyncio.to_thread(opened, "child"))


async def in_the_handler() -> None:
    opened("child")


async def by_update() -> None:
    opened("child")
    mlflow.update_current_trace(tags={"said": "by MLflow"})


@pytest.mark.parametrize("handler", [in_the_handler, in_a_task, by_update])
async def test_spans_of_the_app_are_inside(traces: list[Trace], handler: Callable[[], Awaitable[None]]) -> None:
    """In the same task, in another one and in a thread; and MLflow's own functions reach the request's trace."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await handler()
        await saying(start(200), body(b"fine"))(scope, receive, send)

    await ask(TraceMiddleware(app), http())

    (trace,) = traces
    root, child = sorted(trace.data.spans, key=lambda span: span.parent_id is not None)
    assert (root.name, child.name, child.parent_id) == ("GET", "child", root.span_id)
    assert trace.info.tags.get("said") == ("by MLflow" if handler is by_update else None)


async def test_spans_between_the_pieces_of_a_stream(traces: list[Trace]) -> None:
    """The request is current as long as the app runs, and not a moment longer."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200))
        for number in range(3):
            opened(f"chunk {number}")
            annotate(tags={f"chunk-{number}": "seen"})
            await send(body(b"x", number < 2))

    await TraceMiddleware(app)(http(), None, _nowhere)
    assert current() is None
    assert mlflow.get_current_active_span() is None

    (trace,) = traces
    assert [span.name for span in trace.data.spans] == ["GET", "chunk 0", "chunk 1", "chunk 2"]
    assert {f"chunk-{number}" for number in range(3)} <= trace.info.tags.keys()


async def _nowhere(message: ASGISendEvent) -> None: ...


async def test_background_work_after_the_last_byte(traces: list[Trace]) -> None:
    """The trace is stored before it starts; a span that it opens joins the same trace, whose end stays."""
    may_begin = asyncio.Event()

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200, TEXT))
        await send(body(b"answer"))
        await may_begin.wait()
        opened("afterwards")

    serving = Serving(TraceMiddleware(app), http())
    await serving.take()
    assert await serving.take() == body(b"answer")
    (before,) = traces
    may_begin.set()
    await serving.end()

    (after,) = traces
    assert [span.name for span in before.data.spans] == ["GET"]
    assert [span.name for span in after.data.spans] == ["GET", "afterwards"]
    assert root_of(after).end_time_ns == root_of(before).end_time_ns < after.data.spans[1].start_time_ns
    assert root_of(after).outputs == "answer"


async def test_two_around_one_app_make_one_trace(traces: list[Trace]) -> None:
    """Also with different settings: the outer one's apply."""
    inner = TraceMiddleware(saying(start(200), body(b"a")), tags={"which": "inner"})
    sent = await ask(TraceMiddleware(inner, tags={"which": "outer"}), http())

    assert [trace.info.tags["which"] for trace in traces] == ["outer"]
    assert [name for name, _ in sent[0]["headers"]].count(b"x-request-id") == 1


async def test_simultaneous_requests_do_not_mix(traces: list[Trace]) -> None:
    """All wait for each other, and each has its own identity; the middleware keeps nothing of any."""
    count = 20
    arrived = 0
    all_here = asyncio.Event()

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        nonlocal arrived
        heard = await receive()
        assert heard["type"] == "http.request"
        await send(start(200, TEXT))
        arrived += 1
        if arrived == count:
            all_here.set()
        await all_here.wait()
        with mlflow.start_span("child") as child:
            child.set_inputs(heard["body"].decode())
        await send(body(heard["body"]))

    middleware = TraceMiddleware(app)
    held = dict(vars(middleware))
    scopes = [http(f"/{number}", TEXT, (b"x-user-id", b"u-%d" % number), method="POST") for number in range(count)]
    await asyncio.gather(*[ask(middleware, scope, b"body %d" % number) for number, scope in enumerate(scopes)])

    assert vars(middleware) == held
    assert len(traces) == count
    for trace in traces:
        number = root_of(trace).attributes["url.path"][1:]
        assert (root_of(trace).inputs, root_of(trace).outputs) == (f"body {number}", f"body {number}")
        assert [span.inputs for span in trace.data.spans[1:]] == [f"body {number}"]
        assert trace.info.tags["mlflow.trace.user"] == f"u-{number}"


PARENT = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_callers_trace(traces: list[Trace], trusted: bool) -> None:
    """If it is trusted, the request belongs to it; otherwise it has a trace of its own."""
    middleware = TraceMiddleware(saying(start(200), body()), trust_incoming_trace=trusted)
    await ask(middleware, http("/", PARENT))

    (trace,) = traces
    (root,) = trace.data.spans
    assert (trace.info.trace_id == "tr-0af7651916cd43dd8448eb211c80319c") is trusted
    assert root.parent_id == ("b7ad6b7169203331" if trusted else None)


# --- routes and options ------------------------------------------------------------------------------------------


async def test_a_subclass_knows_the_route(traces: list[Trace]) -> None:
    """It names the trace."""

    class Routed(TraceMiddleware):
        def route(self, scope: HTTPScope) -> str | None:
            return "/chats/{chat_id}" if scope["path"].startswith("/chats/") else None

    middleware = Routed(saying(start(200), body()))
    await ask(middleware, http("/chats/1"))
    await ask(middleware, http("/other"))

    assert [root_of(trace).name for trace in traces] == ["GET /chats/{chat_id}", "GET"]
    assert [trace.info.tags.get("http.route") for trace in traces] == ["/chats/{chat_id}", None]
    assert [trace.info.tags["mlflow.traceName"] for trace in traces] == ["GET /chats/{chat_id}", "GET"]


def test_a_wrong_option_is_named_at_once() -> None:
    """Not only when the first request arrives."""
    with pytest.raises(SettingsError, match="sampel_ratio"):
        TraceMiddleware(saying(), sampel_ratio=1.0)
