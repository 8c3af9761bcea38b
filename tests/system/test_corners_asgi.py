"""ASGI's corner cases: an app behind the middleware answers the same bytes in the same order, and is traced."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import requests

from tests import corners, raw
from tests.apps import corners_asgi
from tests.apps.launch import connected, running
from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer

pytestmark = [pytest.mark.once, pytest.mark.xdist_group("corners-asgi")]


def start(like: str, server: MLflowServer, factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    traces = Traces(server.uri, f"corners-{uuid.uuid4().hex}")
    variables = connected(traces, server.uri) | corners.VARIABLES
    with running(like, "tests.apps.corners_asgi:app", factory.mktemp("corners"), traces, **variables) as app:
        yield app


@pytest.fixture(scope="module")
def uvicorn(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app under uvicorn."""
    yield from start("asgi", server, tmp_path_factory)


@pytest.fixture(scope="module")
def hypercorn(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app under hypercorn."""
    pytest.importorskip("hypercorn", reason="hypercorn is not installed in this environment")
    yield from start("asgi-hypercorn", server, tmp_path_factory)


@pytest.fixture(params=["uvicorn", "hypercorn"])
def app(request: pytest.FixtureRequest) -> RunningApp:
    """The app under each server."""
    running_app: RunningApp = request.getfixturevalue(request.param)
    return running_app


@pytest.mark.parametrize(
    ("path", "method", "header"),
    [
        ("/plain", "GET", ""),
        ("/plain", "HEAD", ""),
        ("/chunks", "GET", ""),
        ("/chunks", "HEAD", ""),
        ("/created", "POST", "Content-Length: 0"),
        ("/no-content", "DELETE", ""),
        ("/not-modified", "GET", 'If-None-Match: "5"'),
        ("/range", "GET", "Range: bytes=0-4"),
        ("/plain", "GET", "Upgrade: x-other"),
        ("/broken", "GET", ""),
    ],
)
def test_the_same_bytes_come_back(app: RunningApp, request_id: str, path: str, method: str, header: str) -> None:
    """As without the middleware; and nested middlewares make one trace, without a disconnect."""
    headers = [header] if header else []
    bare = raw.answer(app, f"/bare{path}", *headers, method=method)
    answer = raw.answer(app, path, *headers, f"X-Request-ID: {request_id}", method=method)

    assert raw.without_ours(answer) == raw.without_ours(bare)
    assert f"x-request-id: {request_id}".encode() in answer
    trace = app.traces.one(request_id)
    assert len(trace.data.spans) == 1
    assert trace.info.tags["http.status_code"] == bare.split()[1].decode()
    assert "http.client_disconnected" not in corners.root_of(trace).attributes
    assert str(trace.info.state) == ("ERROR" if path == "/broken" else "OK")


@pytest.mark.parametrize("path", [path for path in corners_asgi.SAID if path != "/without-headers"])
def test_every_message_reaches_the_server(uvicorn: RunningApp, request_id: str, path: str) -> None:
    """Each is unchanged and in order; only the start of the response has our headers. The trace ends with them."""
    heard = requests.get(f"{uvicorn.url}/transcript{path}", headers={"X-Request-ID": request_id}, timeout=60).json()

    assert heard["own"] == [message["type"] != "http.response.start" for message in heard["bare"]]
    for message in heard["traced"]:
        if message["type"] == "http.response.start":
            added = [message["headers"].pop()[0] for _ in range(2)]
            assert added == ["x-mlflow-trace-id", "x-request-id"]
    assert heard["traced"] == heard["bare"]
    assert str(uvicorn.traces.one(request_id).info.state) == "OK"


def test_a_start_without_headers_passes(uvicorn: RunningApp, request_id: str) -> None:
    """The specification allows an app to omit them, and the body, too."""
    heard = uvicorn.get("/transcript/without-headers", x_request_id=request_id).json()

    begun, ended = heard["traced"]
    assert (begun["status"], [name for name, _ in begun["headers"]]) == (200, ["x-request-id", "x-mlflow-trace-id"])
    assert ended == {"type": "http.response.body"}
    assert uvicorn.traces.one(request_id).info.tags["http.status_code"] == "200"


def test_a_broken_pipe_is_a_disconnect(uvicorn: RunningApp, request_id: str) -> None:
    """The server's exception reaches the app, and is no error."""
    heard = uvicorn.get("/transcript/chunks?broken", x_request_id=request_id).json()

    assert heard["traced"][-1] == heard["bare"][-1] == {"type": "BrokenPipeError"}
    trace = uvicorn.traces.one(request_id)
    assert corners.root_of(trace).attributes["http.client_disconnected"] is True
    assert (str(trace.info.state), corners.root_of(trace).outputs) == ("OK", "one,")


def test_a_cancelled_task_is_a_disconnect(uvicorn: RunningApp, request_id: str) -> None:
    """The chunks sent before are kept."""
    heard = uvicorn.get("/transcript/cancelled", x_request_id=request_id).json()

    assert heard["traced"][-1] == heard["bare"][-1] == {"type": "CancelledError"}
    trace = uvicorn.traces.one(request_id)
    assert corners.root_of(trace).attributes["http.client_disconnected"] is True
    assert (str(trace.info.state), corners.root_of(trace).outputs) == ("OK", "begun")


def test_a_stream_that_raises_midway_is_an_error(app: RunningApp, request_id: str) -> None:
    """The chunks sent before are kept, with the exception."""
    raw.answer(app, "/broken", f"X-Request-ID: {request_id}")

    trace = app.traces.one(request_id)
    (event,) = corners.root_of(trace).events
    assert event.attributes["exception.message"] == "the model went away"
    assert (str(trace.info.state), corners.root_of(trace).outputs) == ("ERROR", "begun")
    assert "http.client_disconnected" not in corners.root_of(trace).attributes


def test_a_client_that_stops_after_the_third_token(app: RunningApp, request_id: str) -> None:
    """It is no error; the tokens that it was sent are kept, and counted."""
    with raw.connect(app) as client:
        client.sendall(raw.head_of("/tokens/3000/60000", f"X-Request-ID: {request_id}"))
        raw.until_third_token(client)

    corners.check_stopped(app.traces.one(request_id))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_disconnects_before_a_whole_answer(app: RunningApp, request_id: str, method: str) -> None:
    """Servers let the app answer nobody, and report it if asked; neither reads the client's request to the end."""
    with raw.connect(app) as client:
        client.sendall(raw.head_of("/late", f"X-Request-ID: {request_id}", "Content-Length: 0", method=method))
        app.get("/health")  # the server has received the first one by now
    app.get(f"/open/{request_id}")

    trace = app.traces.one(request_id)
    assert corners.root_of(trace).attributes["http.client_disconnected"] is True
    assert str(trace.info.state) == "OK"


def test_a_client_that_stays_gets_a_late_answer(app: RunningApp, request_id: str) -> None:
    """Its trace ends normally; the same connection serves the next request."""
    with requests.Session() as session, ThreadPoolExecutor() as pool:
        for number in range(2):
            headers = {"X-Request-ID": f"{request_id}-{number}"}
            asked = pool.submit(session.post, f"{app.url}/late", headers=headers, data=b"question", timeout=60)
            app.get(f"/open/{request_id}-{number}")
            assert asked.result().text == "answer"
    for number in range(2):
        root = corners.root_of(app.traces.one(f"{request_id}-{number}"))
        assert "http.client_disconnected" not in root.attributes


def test_a_stream_longer_than_mlflow_keeps_a_trace_is_stored(app: RunningApp, request_id: str) -> None:
    """It is stored whole, with the right statistics; there are more of them than MLflow's buffer holds."""
    corners.check_long_streams(app, request_id)


@pytest.mark.parametrize(("path", "state"), [("/after", "OK"), ("/after-and-fail", "ERROR")])
def test_work_after_the_answer_delays_nothing(uvicorn: RunningApp, request_id: str, path: str, state: str) -> None:
    """The trace is stored during the work, and ends with the last byte; later spans, tags and a failure are added."""
    corners.check_afterwards(uvicorn, path, request_id, state)


@pytest.mark.heavy
@pytest.mark.parametrize("what", ["upload", "download"])
def test_a_gibibyte_takes_no_memory(uvicorn: RunningApp, what: str) -> None:
    """The app's process takes at most 2 MiB more than without the middleware."""
    assert corners.memory_for_a_gibibyte(uvicorn, what) < 2048


def test_an_async_generator_has_the_context_on_each_chunk(app: RunningApp, request_id: str) -> None:
    """On the first and on the last."""
    assert app.get("/generated", x_request_id=request_id).text == "0\n1\n2\n"

    trace = app.traces.one(request_id)
    assert corners.names_of(trace) == {"chunk 0", "chunk 1", "chunk 2"}
    assert {trace.info.tags.get(f"chunk-{number}") for number in range(3)} == {"seen"}


@pytest.fixture(name="h2", scope="module")
def installed_h2() -> ModuleType:
    """The HTTP/2 packages that hypercorn itself uses."""
    module: ModuleType = pytest.importorskip("h2.connection", reason="h2 is not installed in this environment")
    pytest.importorskip("h2.events", reason="h2 is not installed in this environment")
    return module


class Http2:
    """A client that speaks HTTP/2 from the first byte.

    Args:
        module: The package's module for connections.
        app: The app to talk to.
    """

    def __init__(self, module: ModuleType, app: RunningApp) -> None:
        self._connection: Any = module.H2Connection()
        self._connection.initiate_connection()
        self._wire: socket.socket = raw.connect(app)
        self._flush()

    def ask(self, path: str, request_id: str) -> int:
        """Send a request; return its stream's number."""
        stream: int = self._connection.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "app")]
        headers = [*pseudo, ("x-request-id", request_id), ("te", "trailers")]
        self._connection.send_headers(stream, headers, end_stream=True)
        self._flush()
        return stream

    def events(self) -> Iterator[Any]:
        """Yield the server's events as they arrive."""
        while data := self._wire.recv(65536):
            yield from self._connection.receive_data(data)
            self._flush()

    def reset(self, stream: int) -> None:
        """Cancel one stream; the connection goes on."""
        self._connection.reset_stream(stream, error_code=8)  # CANCEL
        self._flush()

    def close(self) -> None:
        """End the connection."""
        self._connection.close_connection()
        self._flush()
        self._wire.close()

    def _flush(self) -> None:
        self._wire.sendall(self._connection.data_to_send())


def listen(client: Http2, streams: set[int]) -> list[tuple[str, Any]]:
    """Return all events of these streams until they have ended, by kind, without parts that may differ."""
    left, heard = set(streams), []
    for event in client.events():
        kind = type(event).__name__
        headers = [
            pair for pair in getattr(event, "headers", None) or () if pair[0].rstrip(b":") + b":" not in raw.ADDED
        ]
        if getattr(event, "stream_id", None) in streams:
            heard.append((kind, headers or getattr(event, "data", None)))
        if kind == "StreamEnded":
            left.discard(event.stream_id)
        if not left:
            return heard
    raise AssertionError(f"the connection ended before the streams {left}: {heard}")


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/plain", ["ResponseReceived", "DataReceived", "StreamEnded"]),
        ("/hinted", ["InformationalResponseReceived", "ResponseReceived", "DataReceived", "StreamEnded"]),
        ("/trailers", ["ResponseReceived", "DataReceived", "TrailersReceived", "StreamEnded"]),
    ],
)
def test_http2_with_early_hints_and_trailers(
    h2: ModuleType, hypercorn: RunningApp, request_id: str, path: str, kinds: list[str]
) -> None:
    """The same frames arrive as without the middleware."""
    client = Http2(h2, hypercorn)
    bare = listen(client, {client.ask(f"/bare{path}", "")})
    traced = listen(client, {client.ask(path, request_id)})
    client.close()

    assert list(dict.fromkeys(kind for kind, _ in traced)) == kinds
    assert traced == bare
    trace = hypercorn.traces.one(request_id)
    assert corners.root_of(trace).attributes["network.protocol.version"] == "2"
    assert (str(trace.info.state), "http.client_disconnected" in corners.root_of(trace).attributes) == ("OK", False)


def test_http2_streams_of_one_connection_never_mix(h2: ModuleType, hypercorn: RunningApp, request_id: str) -> None:
    """One of them is cancelled after its third token; the others go on."""
    client = Http2(h2, hypercorn)
    whole = {client.ask("/tokens/20/1000", f"{request_id}-{number}") for number in range(3)}
    given_up = client.ask("/tokens/3000/60000", f"{request_id}-stop")
    tokens, left = b"", set(whole)
    for event in client.events():
        stream, kind = getattr(event, "stream_id", None), type(event).__name__
        if stream == given_up and kind == "DataReceived" and tokens.count(b"data: ") < 3:
            tokens += event.data
            if tokens.count(b"data: ") >= 3:
                client.reset(given_up)
        if kind == "StreamEnded":
            left.discard(event.stream_id)
        if not left and tokens.count(b"data: ") >= 3:
            break

    stored = {
        trace.info.client_request_id: trace
        for trace in hypercorn.traces.wait(f"tags.client_request_id LIKE '{request_id}-%'", 4)
    }
    client.close()
    corners.check_stopped(stored.pop(f"{request_id}-stop"))
    assert {len(corners.root_of(trace).outputs) for trace in stored.values()} == {20}
    assert not any("http.client_disconnected" in corners.root_of(trace).attributes for trace in stored.values())
