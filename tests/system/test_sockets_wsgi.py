"""WebSockets under WSGI servers, by the existing libraries: as on ASGI, they have no trace of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Trace

from tests.conftest import RunningApp, Traces
from tests.servers import MLflowServer, clean_environment, free_port, serving

pytest.importorskip("flask_socketio", reason="Flask-SocketIO is not installed in this environment")
pytest.importorskip("flask_sock", reason="flask-sock is not installed in this environment")

from simple_websocket import Client, ConnectionClosed

COMMANDS = {
    "werkzeug": [sys.executable, "-m", "tests.apps.sockets_app"],
    "gunicorn": [sys.executable, "-m", "gunicorn", "--threads", "4", "tests.apps.sockets_app:app"],
}
IDS = {"X-Session-ID": "s-1", "X-User-ID": "jane"}


@pytest.fixture(params=COMMANDS)
def app(request: pytest.FixtureRequest, server: MLflowServer, tmp_path: Path, request_id: str) -> Iterator[RunningApp]:
    """The app under a server, with traces of its own."""
    port = free_port()
    bind = [f"--bind=127.0.0.1:{port}"] if request.param == "gunicorn" else []
    environment = clean_environment(
        MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=request_id, PORT=str(port), IDENTIFY="yes"
    )
    command = [*COMMANDS[request.param][:3], *bind, *COMMANDS[request.param][3:]]
    with serving(command, environment, tmp_path / "log", port) as (process, url):
        yield RunningApp(request.param, url, process, Traces(server.uri, request_id))


def stored(app: RunningApp, request_id: str) -> dict[str, list[Trace]]:
    """Return all traces by name, once that of a last request is there."""
    app.get("/after", x_request_id=request_id)
    app.traces.one(request_id)
    found: dict[str, list[Trace]] = {}
    for trace in app.traces.search(""):
        found.setdefault(trace.data.spans[0].name, []).append(trace)
    return found


@pytest.mark.parametrize("end", ["client", "app"])
def test_a_socket_gives_its_identity_to_the_traces_inside(app: RunningApp, request_id: str, end: str) -> None:
    """flask-sock: two turns are two traces of one session, the socket has none; a normal end is no error."""
    ws = Client.connect(app.url.replace("http", "ws") + "/chat", headers={**IDS, "X-Login": "jane@shop"})
    for question in ("a", "b"):
        ws.send(question)
        assert ws.receive(timeout=30) == question.upper()
    if end == "client":
        ws.close()
    else:
        ws.send("break")
        with pytest.raises(ConnectionClosed):
            ws.receive(timeout=30)
    found = stored(app, request_id)

    assert {name: len(traces) for name, traces in found.items()} == {"answer": 2, "GET /after": 1}
    assert {trace.info.state for traces in found.values() for trace in traces} == {"OK"}
    tags = [trace.info.tags for trace in found["answer"]]
    assert {tag["mlflow.trace.session"] for tag in tags} == {"s-1"}
    assert {tag["mlflow.trace.user"] for tag in tags} == {"jane@shop"}


def test_socket_io(app: RunningApp, request_id: str) -> None:
    """Its protocol over one socket; it is served before Flask has a request, so the user comes from the headers."""
    ws = Client.connect(app.url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket", headers=IDS)

    def receive() -> str:
        """Return the next message that is no ping, which a busy machine may have time for."""
        while (message := str(ws.receive(timeout=30))) == "2":
            pass
        return message

    assert receive()[:1] == "0"
    ws.send("40")
    assert receive()[:2] == "40"
    ws.send('42["ask","a"]')
    assert json.loads(receive()[2:]) == ["answer", "A"]
    ws.close()
    found = stored(app, request_id)

    assert {name: len(traces) for name, traces in found.items()} == {"answer": 1, "GET /after": 1}
    assert found["answer"][0].info.tags["mlflow.trace.session"] == "s-1"
    assert found["answer"][0].info.tags["mlflow.trace.user"] == "jane"


def test_a_failed_upgrade_is_a_request(app: RunningApp, request_id: str) -> None:
    """A client that only asks for one, and that Werkzeug refuses, is traced like any other."""
    answer = app.get("/after", x_request_id=request_id, upgrade="websocket", connection="Upgrade")

    assert answer.status_code == 400
    assert app.traces.one(request_id).info.state == "OK"
