"""The pages of the frameworks, streams and WebSockets: their examples, served and read back from a server."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.entities import Trace

from tests.apps.launch import connected, running
from tests.conftest import Traces
from tests.servers import DEADLINE, MLflowServer

pytestmark = pytest.mark.once

APPS = {
    "fastapi": ("fastapi", "examples.guide_fastapi:app"),
    "flask": ("flask", "examples.guide_flask:app"),
    "django-wsgi": ("django", "examples.guide_django:wsgi"),
    "django-lifespan": ("django", "examples.guide_django:asgi"),
}


@pytest.mark.parametrize("like", APPS)
def test_the_example_of_a_frameworks_page(server: MLflowServer, request_id: str, tmp_path: Path, like: str) -> None:
    """The login's user, a stream with its model's span below the request's, and an exception that the app handled."""
    package, target = APPS[like]
    pytest.importorskip(package, reason=f"{package} is not installed in this environment")
    traces = Traces(server.uri, f"guide-{request_id}")
    with running(like, target, tmp_path, traces, **connected(traces, server.uri)) as app:
        app.get("/me", x_request_id="login", authorization="Bearer t-1")
        app.get("/me", x_request_id="nobody")
        streamed = app.post("/chats/c-1/stream?question=why+not", b"", x_request_id="stream")
        app.get("/busy", x_request_id="busy")
        found = {str(trace.info.client_request_id): trace for trace in app.traces.wait("trace.status != 'x'", 4)}

    assert streamed.text == "data: why\n\ndata: not\n\n"
    assert found["login"].info.tags["mlflow.trace.user"] == "jane"
    assert found["nobody"].info.tags["http.status_code"] == "401"
    assert "mlflow.trace.user" not in found["nobody"].info.tags
    assert found["stream"].info.tags["mlflow.trace.session"] == "c-1"
    root, model = sorted(found["stream"].data.spans, key=lambda span: span.parent_id is not None)
    assert (model.name, model.parent_id, model.outputs) == ("model", root.span_id, ["data: why\n\n", "data: not\n\n"])
    assert root.outputs == ["why", "not"]
    assert found["busy"].info.state == "ERROR"
    assert [event.name for event in found["busy"].data.spans[0].events] == ["exception"]


def test_a_trusted_proxy_reports_the_origin_of_a_request(server: MLflowServer, request_id: str, tmp_path: Path) -> None:
    """In the headers that it adds; the option is a keyword of the example."""
    pytest.importorskip("fastapi", reason="fastapi is not installed in this environment")
    traces = Traces(server.uri, f"proxy-{request_id}")
    variables = {**connected(traces, server.uri), "FORWARDED_ALLOW_IPS": ""}  # else uvicorn has applied the headers
    with running("fastapi", APPS["fastapi"][1], tmp_path, traces, **variables) as app:
        forwarded = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "chat.example"}
        requests.get(f"{app.url}/me", headers={**forwarded, "X-Request-ID": request_id}, timeout=DEADLINE)
        (root,) = app.traces.one(request_id).data.spans

    origin = ("client.address", "url.scheme", "server.address", "network.peer.address")
    assert [root.attributes[key] for key in origin] == ["203.0.113.7", "https", "chat.example", "127.0.0.1"]


def test_each_message_of_a_websocket_is_a_trace(captured_traces: list[Trace]) -> None:
    """Its session is the one that the handler named."""
    pytest.importorskip("fastapi", reason="fastapi is not installed in this environment")
    pytest.importorskip("httpx2", reason="httpx2 is not installed in this environment")
    from fastapi.testclient import TestClient

    app = importlib.import_module("examples.guide_fastapi").app
    with TestClient(app).websocket_connect("/chats/c-1/socket") as socket:
        for question in ("why?", "how?"):
            socket.send_text(question)
            assert socket.receive_text() == f"You asked: {question}"

    assert [trace.data.spans[0].name for trace in captured_traces] == ["answer", "answer"]
    assert {trace.info.tags["mlflow.trace.session"] for trace in captured_traces} == {"c-1"}


@pytest.mark.parametrize(("path", "spans"), [("/decorated", ["request"]), ("/held", ["request", "model"])])
def test_a_stream_that_is_closed_early(captured_traces: list[Trace], path: str, spans: list[str]) -> None:
    """A span that the generator holds ends then; MLflow's decorator loses its own, as the page of streams documents."""
    pytest.importorskip("flask", reason="flask is not installed in this environment")
    from flask import Flask, Response

    from mlflow_middleware.flask import MLflowMiddleware

    app = Flask("streams")
    MLflowMiddleware(app)
    generators = {"/decorated": mlflow.trace(words, name="model"), "/held": held_words}
    app.add_url_rule(path, view_func=lambda: Response(generators[path]()))

    answer = app.test_client().get(path, buffered=False)
    assert next(iter(answer.response)) == b"one"
    answer.close()

    (trace,) = captured_traces
    assert [span.name.replace(f"GET {path}", "request") for span in trace.data.spans] == spans


def words() -> Iterator[str]:
    yield from ("one", "two")


def held_words() -> Iterator[str]:
    with mlflow.start_span("model"):
        yield from words()
