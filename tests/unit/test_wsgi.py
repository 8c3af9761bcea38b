"""The WSGI middleware: the server gets the app's own answer, and the trace describes the request."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow.entities import Trace

from mlflow_middleware._internal import guard
from mlflow_middleware.asgi import TraceMiddleware as ASGIMiddleware
from mlflow_middleware.identity import Identity
from mlflow_middleware.request_trace import annotate, current
from mlflow_middleware.settings import SettingsError
from mlflow_middleware.wsgi import TraceMiddleware
from tests.messages import http
from tests.unit.serving import root_of

pytest.importorskip("werkzeug", reason="werkzeug is not installed in this environment")

from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, EnvironBuilder, run_wsgi_app
from werkzeug.wsgi import FileWrapper

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.datastructures import Headers

QUESTION = {"messages": [{"role": "user", "content": "Where?"}], "api_key": "k-1"}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "There."}}]}
TEXT = [("Content-Type", "text/plain")]


def saying(*chunks: bytes, status: str = "200 OK", headers: list[tuple[str, str]] = TEXT) -> WSGIApplication:
    """Return an app that answers with a list."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(headers))
        return list(chunks)

    return app


class Closing:
    """An app's answer that records when it is closed.

    Args:
        chunks: Its chunks.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = iter(chunks)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.chunks)

    def close(self) -> None:
        self.closed += 1


def answering(answer: Iterable[bytes]) -> WSGIApplication:
    """Return an app with this answer object."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        return answer

    return app


def ask(app: WSGIApplication, path: str = "/", **how: Any) -> tuple[bytes, str, Headers]:
    """Return body, status and headers of an answer that is read to its end and closed, like a server does."""
    iterable, status, headers = run_wsgi_app(app, EnvironBuilder(path, **how).get_environ(), buffered=True)
    return b"".join(iterable), status, headers


# --- answers -----------------------------------------------------------------------------------------------------


def test_a_plain_answer(traces: list[Trace]) -> None:
    """Status, headers and body are the app's, with our headers after its own; the trace has all of the request."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))) == QUESTION
        start_response("201 Created", [("Content-Type", "application/json"), ("X-Own", "1")])
        return [json.dumps(ANSWER).encode()]

    client = Client(TraceMiddleware(app, tags={"plan": "pro"}))
    given = {"X-User-ID": "jane", "X-Session-ID": "s-1", "X-Request-ID": "r-1"}
    answer = client.post("/chats/1?a=1&token=t", json=QUESTION, headers=given)

    (trace,) = traces
    assert (answer.status, json.loads(answer.data)) == ("201 Created", ANSWER)
    assert [name for name, _ in answer.headers] == ["Content-Type", "X-Own", "X-Request-ID", "X-MLflow-Trace-ID"]
    assert answer.headers["X-MLflow-Trace-ID"] == trace.info.trace_id
    assert (trace.info.client_request_id, trace.info.state) == ("r-1", "OK")
    assert trace.info.tags == {
        "mlflow.traceName": "POST",
        "mlflow.trace.user": "jane",
        "mlflow.trace.session": "s-1",
        "client_request_id": "r-1",
        "http.status_code": "201",
        "plan": "pro",
    }
    assert trace.info.trace_metadata["mlflow.trace.user"] == "jane"
    assert (trace.info.request_preview, trace.info.response_preview) == ("Where?", "There.")


def test_the_root_span_of_a_plain_answer(traces: list[Trace]) -> None:
    """One span has the bodies and OpenTelemetry's names for the rest; secrets are replaced."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        return saying(json.dumps(ANSWER).encode(), headers=[("Content-Type", "application/json")])(
            environ, start_response
        )

    how = {"method": "POST", "json": QUESTION, "environ_base": {"REMOTE_ADDR": "192.0.2.1"}}
    ask(TraceMiddleware(app), "/chats/1", query_string="a=1&token=t", base_url="http://example:8000", **how)

    (root,) = traces[0].data.spans
    assert (root.name, root.span_type, str(root.status.status_code)) == ("POST", "CHAIN", "SpanStatusCode.OK")
    assert root.inputs == {**QUESTION, "api_key": "[redacted]", "query": {"a": "1", "token": "[redacted]"}}
    assert root.outputs == ANSWER
    assert {key: value for key, value in root.attributes.items() if not key.startswith("mlflow.")} == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.request.body.size": len(json.dumps(QUESTION)),
        "http.response.body.size": len(json.dumps(ANSWER)),
        "url.path": "/chats/1",
        "url.query": "a=1&token=[redacted]",
        "url.scheme": "http",
        "server.address": "example",
        "server.port": 8000,
        "client.address": "192.0.2.1",
        "network.protocol.version": "1.1",
    }


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_whole_answer_reaches_the_server_as_the_same_object(traces: list[Trace], kind: type) -> None:
    """Servers read its length; it is in the trace before it is read."""
    answer = kind([b"one,", b"two"])
    got, _, _ = run_wsgi_app(TraceMiddleware(answering(answer)), EnvironBuilder().get_environ())

    assert [root_of(trace).outputs for trace in traces] == ["one,two"]
    assert b"".join(got) == b"one,two"


def test_a_generator_runs_piece_by_piece(traces: list[Trace]) -> None:
    """The request is current in each step and while it is closed, and not between them."""
    steps: list[str] = []

    def chunks() -> Iterator[bytes]:
        try:
            for number in range(3):
                with mlflow.start_span(f"chunk {number}"):
                    annotate(tags={f"chunk-{number}": "seen"})
                steps.append(f"made {number}")
                yield b"%d," % number
        finally:
            annotate(tags={"closed": "seen"})

    app = TraceMiddleware(answering(chunks()))
    answer = app(EnvironBuilder().get_environ(), lambda *_: print)
    for chunk in answer:
        steps.append(f"got {chunk.decode()}")
        assert current() is None
        assert mlflow.get_current_active_span() is None
    close(answer)

    assert steps == ["made 0", "got 0,", "made 1", "got 1,", "made 2", "got 2,"]
    (trace,) = traces
    assert [span.name for span in trace.data.spans] == ["GET", "chunk 0", "chunk 1", "chunk 2"]
    assert {"chunk-0", "chunk-1", "chunk-2", "closed"} <= trace.info.tags.keys()
    assert root_of(trace).outputs == "0,1,2,"
    assert root_of(trace).attributes["http.response.chunks"] == 3


def close(answer: Iterable[bytes]) -> None:
    """Close an answer, like a server at the end of each request."""
    end: Callable[[], None] = answer.close  # type: ignore[attr-defined]
    end()


def test_the_apps_close_is_called_once(traces: list[Trace]) -> None:
    """By the server's own call."""
    answer = Closing([b"a", b"b"])

    assert ask(TraceMiddleware(answering(answer)))[0] == b"ab"
    assert answer.closed == 1
    assert [root_of(trace).outputs for trace in traces] == ["ab"]


def test_an_answer_without_close(traces: list[Trace]) -> None:
    """It does not have to have one."""
    assert ask(TraceMiddleware(answering(map(bytes, ([97], [98])))))[0] == b"ab"
    assert [root_of(trace).outputs for trace in traces] == ["ab"]


def test_an_answer_that_is_never_closed(traces: list[Trace]) -> None:
    """Some test clients do not: its trace ends when it is garbage-collected."""
    answer = TraceMiddleware(answering(iter([b"a", b"b"])))(EnvironBuilder().get_environ(), lambda *_: print)
    assert next(iter(answer)) == b"a"
    assert traces == []
    del answer

    assert [root_of(trace).outputs for trace in traces] == ["a"]
    assert root_of(traces[0]).attributes["http.client_disconnected"] is True


def test_written_chunks(traces: list[Trace]) -> None:
    """They come before the returned ones, in the answer and in the trace."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", list(TEXT))
        write(b"written, ")
        return [b"returned"]

    assert Client(TraceMiddleware(app)).get("/").data == b"written, returned"
    assert root_of(traces[0]).outputs == "written, returned"


def test_exc_info_reaches_the_server(traces: list[Trace]) -> None:
    """An app may replace its status as long as nothing is sent; the last one counts."""
    seen: list[Any] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        try:
            raise ValueError("no model")
        except ValueError:
            start_response("503 Unavailable", list(TEXT), sys.exc_info())
        return [b"sorry"]

    def start_response(status: str, headers: Any, *exc_info: Any) -> Any:
        seen.append((status, *(each[0] for each in exc_info)))

    assert list(TraceMiddleware(app)(EnvironBuilder().get_environ(), start_response)) == [b"sorry"]
    assert seen == [("200 OK",), ("503 Unavailable", ValueError)]
    (trace,) = traces
    assert (trace.info.state, trace.info.tags["http.status_code"]) == ("ERROR", "503")


def test_a_file_wrapper_reaches_the_server_as_the_same_object(traces: list[Trace]) -> None:
    """The server can then use sendfile; the trace has no outputs."""
    wrapper = FileWrapper(io.BytesIO(b"content"))
    environ = EnvironBuilder().get_environ()
    environ["wsgi.file_wrapper"] = FileWrapper

    assert TraceMiddleware(answering(wrapper))(environ, lambda *_: print) is wrapper
    assert [trace.info.state for trace in traces] == ["OK"]
    assert root_of(traces[0]).outputs is None


@pytest.mark.parametrize("answer", [[b"whole"], [b"who", b"le"]])
@pytest.mark.parametrize("kind", [list, iter])
def test_head_has_no_outputs(traces: list[Trace], kind: Callable[[Any], Any], answer: list[bytes]) -> None:
    """Even if the app sends some; and it is no disconnect if the server does not read them."""
    close_at_once, status, _ = run_wsgi_app(
        TraceMiddleware(answering(kind(answer)), include="head"), EnvironBuilder(method="HEAD").get_environ()
    )
    if hasattr(close_at_once, "close"):
        close_at_once.close()

    assert status == "200 OK"
    assert (root_of(traces[0]).name, root_of(traces[0]).outputs) == ("HEAD", None)
    assert "http.client_disconnected" not in root_of(traces[0]).attributes


# --- failures ----------------------------------------------------------------------------------------------------


def test_an_exception_before_the_response(traces: list[Trace]) -> None:
    """It reaches the server, and the trace has it as the answer 500 that the server makes of it."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        ask(TraceMiddleware(app))

    (trace,) = traces
    root = root_of(trace)
    assert (trace.info.state, trace.info.tags["http.status_code"]) == ("ERROR", "500")
    assert root.attributes["error.type"] == "ValueError"
    assert root.events[0].attributes["exception.message"] == "no model"
    assert current() is None


def test_an_exception_in_the_middle_of_a_stream(traces: list[Trace]) -> None:
    """The client's status stays, and the chunks that it received."""

    def chunks() -> Iterator[bytes]:
        yield b"begun"
        raise RuntimeError("the model went away")

    with pytest.raises(RuntimeError, match="went away"):
        ask(TraceMiddleware(answering(chunks())))

    (trace,) = traces
    assert (trace.info.state, trace.info.tags["http.status_code"]) == ("ERROR", "200")
    assert root_of(trace).outputs == "begun"


def test_an_exception_in_close(traces: list[Trace]) -> None:
    """It reaches the server, and is an error of the request."""

    class Failing(Closing):
        def close(self) -> None:
            raise RuntimeError("the file is gone")

    with pytest.raises(RuntimeError, match="gone"):
        ask(TraceMiddleware(answering(Failing([b"a"]))))

    assert [trace.info.state for trace in traces] == ["ERROR"]


def test_a_client_that_disconnects(traces: list[Trace]) -> None:
    """The server closes the answer early: an outcome, no error; the chunks that the client received are kept."""
    answer = Closing([b"partly", b" and more"])
    chunks = TraceMiddleware(answering(answer))(EnvironBuilder().get_environ(), lambda *_: print)
    next(iter(chunks))
    close(chunks)

    root = root_of(traces[0])
    assert (traces[0].info.state, root.outputs, answer.closed) == ("OK", "partly", 1)
    assert root.attributes["http.client_disconnected"] is True


def test_a_server_that_cannot_write(traces: list[Trace]) -> None:
    """Its OSError reaches the app, and counts as a disconnect."""

    def start_response(status: str, headers: Any, *exc_info: Any) -> Callable[[bytes], object]:
        def write(chunk: bytes) -> object:
            raise BrokenPipeError

        return write

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))(b"a")
        return []

    with pytest.raises(BrokenPipeError):
        TraceMiddleware(app)(EnvironBuilder().get_environ(), start_response)

    assert root_of(traces[0]).attributes["http.client_disconnected"] is True


# --- the request's body ------------------------------------------------------------------------------------------

BODY = b"first\nsecond\nthird"


def into(stream: Any) -> bytes:
    """Read with ``readinto``, which returns the number of bytes in the buffer."""
    buffer, found = bytearray(4), b""
    while count := stream.readinto(buffer):
        found += buffer[:count]
    return found


@pytest.mark.parametrize(
    ("read", "seen"),
    [
        (lambda stream: stream.read(), BODY),
        (lambda stream: stream.read(5), BODY[:5]),
        (lambda stream: stream.read(5) + stream.read(), BODY),
        (lambda stream: stream.readline(), b"first\n"),
        (lambda stream: stream.readline(3), b"fir"),
        (lambda stream: b"".join(stream.readlines()), BODY),
        (b"".join, BODY),
        (lambda stream: next(stream) + next(stream), b"first\nsecond\n"),
        (lambda stream: stream.read1(5), BODY[:5]),
        (into, BODY),
        (lambda stream: b"", b""),
    ],
    ids=["all", "some", "twice", "line", "part", "lines", "each", "next", "read1", "readinto", "nothing"],
)
def test_the_body_is_seen_as_the_app_reads_it(traces: list[Trace], read: Callable[[Any], bytes], seen: bytes) -> None:
    """In each way to read it; parts that the app does not read are not read."""
    left: list[bytes] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(TEXT))
        return [read(environ["wsgi.input"])]

    environ = EnvironBuilder(method="POST", content_type="text/plain").get_environ()
    environ["wsgi.input"] = stream = io.BytesIO(BODY)
    got = b"".join(TraceMiddleware(app)(environ, lambda *_: print))
    left.append(stream.read())

    assert (got, left) == (seen, [BODY[len(seen) :]])
    assert root_of(traces[0]).inputs == (seen.decode() or None)
    assert root_of(traces[0]).attributes.get("http.request.body.size", 0) == len(seen)


def test_the_input_keeps_its_other_methods(traces: list[Trace]) -> None:
    """Frameworks and servers use them."""
    seen: list[object] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        seen.extend((stream.readable(), stream.tell(), hasattr(stream, "fileno_of_ours")))
        return saying()(environ, start_response)

    ask(TraceMiddleware(app), method="POST", data=b"x")

    assert seen == [True, 0, False]


# --- a websocket -------------------------------------------------------------------------------------------------

HANDSHAKE = {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Key": "x"}


@pytest.mark.parametrize("kind", ["call", "generator"])
@pytest.mark.parametrize("end", [None, StopIteration(), ConnectionError()])
def test_a_websocket_gives_its_identity_to_the_traces_inside(
    traces: list[Trace], kind: str, end: Exception | None
) -> None:
    """In the call and in a generator; it has no trace of its own, and its end is no error."""

    def chat() -> Iterator[bytes]:
        opened("first")
        annotate(session_id="s-2")
        opened("second")
        if end:
            raise end
        yield b""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        return chat() if kind == "generator" else iter([next(chat())])

    headers: dict[str, str] = {**HANDSHAKE, "X-Session-ID": "s-1", "X-User-ID": "jane"}
    environ = EnvironBuilder("/ws", headers=list(headers.items())).get_environ()
    middleware = TraceMiddleware(app, identify=lambda exchange: Identity(user_id="jack"))
    raised = pytest.raises(RuntimeError if isinstance(end, StopIteration) else type(end)) if end else nullcontext()
    with raised:
        list(middleware(environ, lambda *_: bytearray().extend))

    assert [trace.data.spans[0].name for trace in traces] == ["first", "second"]
    assert [trace.info.tags["mlflow.trace.session"] for trace in traces] == ["s-1", "s-2"]
    assert {trace.info.tags["mlflow.trace.user"] for trace in traces} == {"jack"}
    assert {trace.info.state for trace in traces} == {"OK"}
    assert current() is None


@pytest.mark.parametrize("change", [{"Upgrade": "h2c"}, {"Connection": "close"}, {"Sec-WebSocket-Key": ""}])
def test_other_upgrades_are_requests(traces: list[Trace], change: dict[str, str]) -> None:
    """Only a valid WebSocket handshake has no trace; half a handshake does not hide a request."""
    headers = {name: value for name, value in {**HANDSHAKE, **change}.items() if value}
    ask(TraceMiddleware(saying(b"fine")), headers=headers)

    assert [trace.data.spans[0].name for trace in traces] == ["GET"]


# --- requests that are not traced --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, iter])
def test_an_excluded_path_is_silent(traces: list[Trace], kind: Callable[[Any], Any]) -> None:
    """It has no trace, no headers of ours, and none of the app's spans: in the call, in a step, in its close."""

    class Opening(Closing):
        def close(self) -> None:
            opened("close")

    def chunks() -> Iterator[bytes]:
        opened("step")
        yield b"fine"

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        opened("call")
        start_response("200 OK", list(TEXT))
        return [b"fine"] if kind is list else Opening(chunks())

    content, _, headers = ask(TraceMiddleware(app), "/health")

    assert (content, list(headers)) == (b"fine", TEXT)
    assert traces == []


def opened(name: str) -> None:
    """Open a span of the app's own."""
    with mlflow.start_span(name):
        pass


def test_disabled(traces: list[Trace]) -> None:
    """The app's own answer object passes."""
    answer = Closing([b"fine"])

    assert TraceMiddleware(answering(answer), enabled=False)(EnvironBuilder().get_environ(), lambda *_: print) is answer
    assert traces == []


def test_a_request_that_is_sampled_out(traces: list[Trace]) -> None:
    """It has its id all the same; its spans are dropped with it."""

    def chunks() -> Iterator[bytes]:
        opened("step")
        yield b"fine"

    app = TraceMiddleware(answering(chunks()), sample_ratio=0.0)

    assert ask(app, headers={"X-Request-ID": "r-1"})[2]["X-Request-ID"] == "r-1"
    assert traces == []


# --- one request, one trace --------------------------------------------------------------------------------------


def test_two_around_one_app_make_one_trace(traces: list[Trace]) -> None:
    """Also with different settings: the outer one's apply."""
    inner = TraceMiddleware(answering(iter([b"a"])), tags={"which": "inner"})
    _, _, headers = ask(TraceMiddleware(inner, tags={"which": "outer"}))

    assert [trace.info.tags["which"] for trace in traces] == ["outer"]
    assert headers.getlist("X-Request-ID") == [traces[0].info.client_request_id]


def test_a_mounted_app(traces: list[Trace]) -> None:
    """The path is the client's, including the mount's prefix; there is one trace, whichever of the two is traced."""
    traced = TraceMiddleware(saying(b"inner"))
    outer = TraceMiddleware(DispatcherMiddleware(saying(b"outer"), {"/api": traced}))
    alone = DispatcherMiddleware(saying(b"outer"), {"/api": traced})

    assert [ask(app, "/api/chats/1")[0] for app in (outer, alone)] == [b"inner"] * 2
    assert [root_of(trace).attributes["url.path"] for trace in traces] == ["/api/chats/1"] * 2


async def test_mounted_in_an_asgi_app(traces: list[Trace]) -> None:
    """A bridge passes only the context on: the request has its trace already."""

    async def bridge(scope: Any, receive: Any, send: Any) -> None:
        environ = EnvironBuilder(scope["path"]).get_environ()
        content = b"".join(TraceMiddleware(answering(iter([b"a"])))(environ, lambda *_: print))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": content})

    async def nowhere(message: object) -> None: ...

    await ASGIMiddleware(bridge)(http("/chats/1"), None, nowhere)

    assert [root_of(trace).outputs for trace in traces] == ["a"]


def test_work_left_running_calls_the_same_path(traces: list[Trace]) -> None:
    """In the context of a request that has ended, it is another request."""
    contexts: list[Context] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        contexts.append(copy_context())
        start_response("200 OK", [])
        return []

    ask(TraceMiddleware(app), "/poll")
    contexts[0].run(ask, TraceMiddleware(saying(b"later")), "/poll")

    assert [root_of(trace).outputs for trace in traces] == [None, "later"]


def test_a_path_that_is_not_ascii(traces: list[Trace]) -> None:
    """It is the text that the client sent."""
    ask(TraceMiddleware(saying(b"")), "/caf\u00e9/\U0001f642")

    assert root_of(traces[0]).attributes["url.path"] == "/caf\u00e9/\U0001f642"


# --- identity ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"), [("r-1", True), ("a b", False), ("x" * 129, False), ("\u00e9", False), ("<script>", False)]
)
def test_a_request_id_is_echoed_or_made(traces: list[Trace], given: str, kept: bool) -> None:
    """A harmful id is replaced by a new one; the client receives it."""
    echoed = ask(TraceMiddleware(saying(b"")), headers={"X-Request-ID": given})[2]["X-Request-ID"]

    assert (echoed == given) is kept
    assert kept or (len(echoed) == 32 and echoed.isalnum())
    assert (traces[0].info.client_request_id, traces[0].info.tags["client_request_id"]) == (echoed, echoed)


def test_the_apps_header_list_stays_as_it_is(traces: list[Trace]) -> None:
    """An app may send the same list again."""
    own = [("Content-Type", "text/plain"), ("X-Request-ID", "mine")]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", own)
        return [b""]

    _, _, headers = ask(TraceMiddleware(app))

    assert own == [("Content-Type", "text/plain"), ("X-Request-ID", "mine")]
    assert headers.getlist("X-Request-ID") == ["mine"]
    assert headers["X-MLflow-Trace-ID"] == traces[0].info.trace_id


def test_a_browser_may_read_our_headers(traces: list[Trace]) -> None:
    """For a request with an Origin."""
    _, _, headers = ask(TraceMiddleware(saying(b"")), headers={"Origin": "https://example.org"})

    assert headers["Access-Control-Expose-Headers"] == "X-Request-ID, X-MLflow-Trace-ID"


def test_framework_auth_is_read_when_the_response_starts(traces: list[Trace]) -> None:
    """It beats the header, and ``annotate`` beats it; it sees the values that the app has put into the environ."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["REMOTE_USER"] = "joe"
        annotate(session_id="s-of-app")
        return saying(b"")(environ, start_response)

    def identify(exchange: Any) -> Identity:
        return Identity(user_id=exchange.request["REMOTE_USER"], session_id="s-of-auth")

    ask(TraceMiddleware(app, identify=identify), headers={"X-User-ID": "jane"})

    tags = traces[0].info.tags
    assert (tags["mlflow.trace.user"], tags["mlflow.trace.session"]) == ("joe", "s-of-app")


def test_a_request_made_by_hand_without_a_method_is_passed_on(traces: list[Trace]) -> None:
    """Werkzeug's own tests make such environs; one function reports that it is not traced."""
    failed = guard.failures.copy()
    result = TraceMiddleware(lambda environ, start_response: [b"passed on"])({}, lambda *_: lambda _: None)

    assert (list(result), traces) == ([b"passed on"], [])
    assert guard.failures - failed == {("_opened", "KeyError"): 1}
    guard.failures.subtract({("_opened", "KeyError"): 1})


def test_a_wrong_option_is_named_at_once() -> None:
    """Not only when the first request arrives."""
    with pytest.raises(SettingsError, match="sampel_ratio"):
        TraceMiddleware(saying(), sampel_ratio=1.0)
