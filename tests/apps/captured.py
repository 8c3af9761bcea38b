"""Tests such as users write; `tests.system.test_testing` runs them in a pytest process of their own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

import mlflow
import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from mlflow.entities import Trace

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request_trace import annotate
from mlflow_middleware.settings import Settings
from mlflow_middleware.testing import captured_traces as capturing
from mlflow_middleware.wsgi import TraceMiddleware as WSGIMiddleware


def names(traces: list[Trace]) -> list[str]:
    return [trace.data.spans[0].name for trace in traces]


async def nothing(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """An app that another part of a program may set up at the same time."""


def opened(name: str) -> None:
    with mlflow.start_span(name):
        pass


def test_starlette(captured_traces: list[Trace]) -> None:
    pytest.importorskip("starlette", reason="starlette is not installed in this environment")
    pytest.importorskip("httpx2", reason="httpx2, for its test client, is not installed in this environment")
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from mlflow_middleware.fastapi import TraceMiddleware

    async def chat(request: Request) -> JSONResponse:
        annotate(session_id="s-1")
        await request.body()
        return JSONResponse({"answer": 42}, background=BackgroundTask(opened, "afterwards"))

    def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(iter(["a", "b"]))

    def fail(request: Request) -> PlainTextResponse:
        raise ZeroDivisionError

    routes = [
        Route("/chats/{chat_id}", chat, methods=["POST"]),
        Route("/stream", stream),
        Route("/fail", fail),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(TraceMiddleware)])
    with TestClient(app, raise_server_exceptions=False) as client:
        client.post("/chats/1", json={"question": "?"}, headers={"X-User-ID": "jane"})
        assert len(captured_traces) == 1
        client.get("/stream")
        client.get("/fail")

    assert names(captured_traces) == ["POST /chats/{chat_id}", "GET /stream", "GET /fail"]
    check_chat(captured_traces[0], ["POST /chats/{chat_id}", "afterwards"])
    assert captured_traces[1].data.spans[0].outputs == "ab"
    assert captured_traces[2].info.state == "ERROR"


def check_chat(trace: Trace, spans: list[str]) -> None:
    """The trace is as a server would return it."""
    root = trace.data.spans[0]
    assert [span.name for span in trace.data.spans] == spans
    assert (root.inputs, root.outputs) == ({"question": "?"}, {"answer": 42})
    assert trace.info.state == "OK"
    assert (trace.info.tags["mlflow.trace.user"], trace.info.tags["mlflow.trace.session"]) == ("jane", "s-1")
    assert trace.info.trace_metadata["mlflow.trace.session"] == "s-1"
    assert (trace.info.request_preview, trace.info.response_preview) == ('{"question": "?"}', '{"answer": 42}')
    assert trace.info.execution_duration is not None


def test_flask(captured_traces: list[Trace]) -> None:
    flask: Any = pytest.importorskip("flask", reason="flask is not installed in this environment")

    from mlflow_middleware.flask import MLflowMiddleware

    app = flask.Flask(__name__)
    MLflowMiddleware(app)

    @app.post("/chats/<chat_id>")
    def chat(chat_id: str) -> dict[str, int]:
        assert flask.request.json
        annotate(session_id="s-1")
        opened("inside")
        flask.copy_current_request_context(lambda: None)()  # after which Werkzeug has forgotten the request
        return {"answer": 42}

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response(iter(["a", "b"]))

    @app.get("/fail")
    def fail() -> str:
        raise ZeroDivisionError

    client = app.test_client()
    client.post("/chats/1", json={"question": "?"}, headers={"X-User-ID": "jane"})
    assert len(captured_traces) == 1
    assert client.get("/stream").text == "ab"
    client.get("/fail")
    app.testing = True
    with pytest.raises(ZeroDivisionError):
        client.get("/fail")

    assert names(captured_traces) == ["POST /chats/<chat_id>", "GET /stream", "GET /fail", "GET /fail"]
    check_chat(captured_traces[0], ["POST /chats/<chat_id>", "inside"])
    assert captured_traces[1].data.spans[0].outputs == "ab"
    assert captured_traces[1].info.state == "OK"
    assert [trace.info.state for trace in captured_traces[2:]] == ["ERROR", "ERROR"]


def test_django(captured_traces: list[Trace]) -> None:
    pytest.importorskip("django", reason="django is not installed in this environment")
    import django
    from django.conf import settings
    from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
    from django.test import Client
    from django.urls import path

    def chat(request: HttpRequest, chat_id: str) -> JsonResponse:
        assert request.body
        annotate(session_id="s-1")
        opened("inside")
        return JsonResponse({"answer": 42})

    def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(iter(["a", "b"]))

    class Urls:
        urlpatterns = (path("chats/<chat_id>", chat), path("stream", stream))

    middleware = ["mlflow_middleware.django.TraceMiddleware"]
    settings.configure(ROOT_URLCONF=Urls, MIDDLEWARE=middleware, SECRET_KEY="-", ALLOWED_HOSTS=["*"])
    django.setup()
    client = Client(headers={"X-User-ID": "jane"})
    client.post("/chats/1", {"question": "?"}, content_type="application/json")
    assert len(captured_traces) == 1
    assert client.get("/stream").getvalue() == b"ab"

    assert names(captured_traces) == ["POST /chats/<chat_id>", "GET /stream"]
    check_chat(captured_traces[0], ["POST /chats/<chat_id>", "inside"])
    assert captured_traces[1].data.spans[0].outputs == "ab"


def test_an_apps_own_spans_are_in_the_order_of_their_end(captured_traces: list[Trace]) -> None:
    with mlflow.start_span("outer") as outer:
        outer.set_inputs({"a": 1})
        opened("inner")
        threading.Thread(target=opened, args=["of another thread"]).start()
        while not captured_traces:
            pass
    opened("later")

    assert names(captured_traces) == ["of another thread", "outer", "later"]
    assert [span.name for span in captured_traces[1].data.spans] == ["outer", "inner"]
    assert captured_traces[1].data.spans[0].inputs == {"a": 1}


def test_a_span_that_ends_after_its_root(captured_traces: list[Trace]) -> None:
    with mlflow.start_span("root") as root:
        late = mlflow.start_span_no_context("late", parent_span=root)
    opened("another")
    assert [len(trace.data.spans) for trace in captured_traces] == [1, 1]
    late.end()

    assert names(captured_traces) == ["root", "another"]
    assert [span.name for span in captured_traces[0].data.spans] == ["root", "late"]


def test_an_answer_that_is_closed_later() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return iter([b"ab"])

    def answer() -> Iterable[bytes]:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        return WSGIMiddleware(app)(environ, lambda *_: bytearray().extend)

    with capturing() as first:
        kept, forgotten = answer(), answer()
        assert [next(iter(each)) for each in (kept, forgotten)] == [b"ab", b"ab"]
        assert names(first) == ["GET", "GET"]
    with capturing() as second:
        kept.close()  # type: ignore[attr-defined]
    del forgotten

    assert (names(first), names(second)) == (["GET", "GET"], [])


def test_an_answer_that_is_a_list(captured_traces: list[Trace]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"ab"]

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    WSGIMiddleware(app)(environ, lambda *_: bytearray().extend)

    assert names(captured_traces) == ["GET"]


def test_nested_captures() -> None:
    with capturing() as outer:
        opened("1")
        with capturing() as inner:
            opened("2")
        opened("3")
    with capturing() as again:
        opened("4")

    assert [names(each) for each in (outer, inner, again)] == [["1", "3"], ["2"], ["4"]]


def test_a_test_that_fails_ends_its_capture() -> None:
    with pytest.raises(ZeroDivisionError), capturing() as failed:
        raise ZeroDivisionError
    with capturing() as traces:
        opened("next")

    assert (names(failed), names(traces)) == ([], ["next"])


def test_flushes_do_not_wait(captured_traces: list[Trace]) -> None:
    opened("1")
    mlflow.flush_trace_async_logging()
    assert delivery.flush()
    delivery.shutdown()

    assert names(captured_traces) == ["1"]


def test_another_tracking_uri_meanwhile(captured_traces: list[Trace], monkeypatch: pytest.MonkeyPatch) -> None:
    before = mlflow.get_tracking_uri()
    opened("1")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    opened("2")
    mlflow.set_tracking_uri(before)

    assert names(captured_traces) == ["1", "2"]


def test_earlier_pending_traces_stay_pending() -> None:
    """Delivery also goes on as before."""
    delivery.start(Settings.load())
    opened("before")
    counted = delivery.stats()
    assert counted.waiting >= 1
    with capturing() as traces:
        opened("captured")
        TraceMiddleware(nothing)
        until = time.monotonic() + 1.0  # it would be sent after a quarter of that
        while time.monotonic() < until:
            assert delivery.stats() == counted
            time.sleep(0.05)
    assert delivery.stats() == counted
    opened("after")

    assert names(traces) == ["captured"]
    assert delivery.stats().waiting == counted.waiting + 1
    if "--server" in sys.argv:
        assert delivery.flush(60)
