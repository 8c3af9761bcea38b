"""One id for a request, whoever else makes one: the id that the client receives finds the trace."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.entities import Trace

from mlflow_middleware import asgi, wsgi
from mlflow_middleware.testing import captured_traces
from tests.messages import body, http, request
from tests.servers import ROOT, clean_environment
from tests.unit.serving import Serving

pytestmark = pytest.mark.once

GIVEN = "0123456789abcdef0123456789abcdef"


def library(name: str) -> Any:
    """A library that only the tox environment `once` has."""
    return pytest.importorskip(name, reason=f"{name} is not installed in this environment")


def asked(app: asgi.ASGIApp, **headers: str) -> tuple[list[str], Trace]:
    """The request ids that a client received, and the trace."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    with captured_traces() as traces:
        sent: list[Any] = asyncio.run(Serving(app, http("/", *pairs), request()).end())
    return [value.decode() for name, value in sent[0]["headers"] if name.lower() == b"x-request-id"], traces[0]


def answering(*headers: tuple[bytes, bytes], pieces: int = 1) -> asgi.ASGIApp:
    """An app that answers with these headers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        for number in range(pieces):
            await send(body(b"piece", number < pieces - 1))

    return app


async def cut_off(scope: Any, receive: Any, send: Any) -> None:
    """An app that ends in the middle of its answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"r-own")]})
    await send(body(b"piece", True))


def found_by(trace: Trace) -> set[str | None]:
    """Return the ids that find a trace."""
    return {trace.info.client_request_id, trace.info.tags["client_request_id"]}


@pytest.mark.parametrize(
    "app",
    [answering((b"x-request-id", b"r-own")), answering((b"X-REQUEST-ID", b"r-own"), pieces=3), cut_off],
    ids=["whole", "stream", "cut-off"],
)
@pytest.mark.parametrize("given", [{}, {"x_request_id": "r-given"}], ids=["none", "given"])
def test_the_apps_request_id_is_the_traces(app: asgi.ASGIApp, given: dict[str, str]) -> None:
    """Whatever id the client has sent."""
    received_ids, trace = asked(asgi.TraceMiddleware(app), **given)

    assert (received_ids, found_by(trace)) == (["r-own"], {"r-own"})


def test_an_invalid_request_id_of_the_app_is_not_the_traces(request_id: str) -> None:
    """The app's header stays unchanged, and the trace has an id that a query can contain."""
    received_ids, trace = asked(
        asgi.TraceMiddleware(answering((b"x-request-id", b"<script>"))), x_request_id=request_id
    )

    assert (received_ids, found_by(trace)) == (["<script>"], {request_id})


def test_another_header_name_in_the_response(request_id: str) -> None:
    """An id that the app sends under the request's header counts, too; both headers have the same id."""
    app = asgi.TraceMiddleware(answering((b"x-request-id", b"r-own")), response_headers={"request_id": "X-Told"})
    with captured_traces() as traces:
        sent: list[Any] = asyncio.run(Serving(app, http(), request()).end())

    assert dict(sent[0]["headers"])[b"x-told"] == b"r-own"
    assert found_by(traces[0]) == {"r-own"}


def test_a_trace_id_of_the_apps_own_is_the_only_one() -> None:
    """A gateway may pass on that of the service behind it."""
    app = asgi.TraceMiddleware(answering((b"X-MLflow-Trace-ID", b"tr-1")))
    with captured_traces():
        sent: list[Any] = asyncio.run(Serving(app, http(), request()).end())

    assert [value for name, value in sent[0]["headers"] if name.lower() == b"x-mlflow-trace-id"] == [b"tr-1"]


@pytest.mark.parametrize(
    "given", [{}, {"x_request_id": GIVEN}, {"x_request_id": "not one for them"}], ids=["none", "given", "refused"]
)
@pytest.mark.parametrize("where", ["inside", "around"])
def test_asgi_correlation_id(where: str, given: dict[str, str]) -> None:
    """In either order: one header, one id."""
    middleware = library("asgi_correlation_id").CorrelationIdMiddleware
    app = answering()
    app = asgi.TraceMiddleware(middleware(app)) if where == "inside" else middleware(asgi.TraceMiddleware(app))
    received_ids, trace = asked(app, **given)

    assert len(received_ids) == 1
    assert found_by(trace) == set(received_ids)
    assert received_ids == [GIVEN] or given != {"x_request_id": GIVEN}


@pytest.mark.parametrize("given", [{}, {"x_request_id": GIVEN}], ids=["none", "given"])
@pytest.mark.parametrize("kind", ["RawContextMiddleware", "ContextMiddleware"])
@pytest.mark.parametrize("where", ["inside", "around"])
def test_starlette_context(where: str, kind: str, given: dict[str, str]) -> None:
    """Its last id finds the trace; around ours, its raw middleware adds a header of its own."""
    library("starlette_context")
    module = importlib.import_module("starlette_context.middleware")
    plugin = importlib.import_module("starlette_context.plugins").RequestIdPlugin(validate=False)

    def added(app: Any) -> Any:
        return getattr(module, kind)(app, plugins=(plugin,))

    app: Any = answering()
    app = asgi.TraceMiddleware(added(app)) if where == "inside" else added(asgi.TraceMiddleware(app))
    received_ids, trace = asked(app, **given)

    assert found_by(trace) == {received_ids[-1]}
    assert len(received_ids) == 1 or (where, kind) == ("around", "RawContextMiddleware")


def test_a_hand_written_middleware() -> None:
    """As in Starlette's documentation, around ours: it replaces our header."""
    base: Any = library("starlette.middleware.base").BaseHTTPMiddleware

    async def dispatch(request: Any, call_next: Callable[[Any], Any]) -> Any:
        response = await call_next(request)
        response.headers["X-Request-ID"] = "r-own"
        return response

    received_ids, trace = asked(base(asgi.TraceMiddleware(answering(pieces=3)), dispatch=dispatch))

    assert (received_ids, found_by(trace)) == (["r-own"], {"r-own"})


@pytest.mark.parametrize("where", ["inside", "around"])
@pytest.mark.parametrize("name", ["X-Request-ID", "x-request-id"])
def test_a_wsgi_app(where: str, name: str) -> None:
    """As with ASGI; a middleware around ours appends to the list of headers."""

    def own(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [(name, "r-own")])
        return iter([b"piece"])

    def bare(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [b"piece"]

    def around(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            headers[:] = [pair for pair in headers if pair[0].lower() != "x-request-id"] + [(name, "r-own")]
            write: Callable[[bytes], object] = start_response(status, headers)
            return write

        return wsgi.TraceMiddleware(bare)(environ, start)

    got: list[tuple[str, str]] = []
    environ: Any = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_REQUEST_ID": "r-given"}
    app: Any = wsgi.TraceMiddleware(own) if where == "inside" else around
    with captured_traces() as traces:
        answer = app(environ, lambda status, headers, exc_info=None: got.extend(headers))
        assert b"".join(answer) == b"piece"

    assert [value for key, value in got if key.lower() == "x-request-id"] == ["r-own"]
    assert found_by(traces[0]) == {"r-own"}


FLASK = """
from flask import Flask
from mlflow_middleware.flask import MLflowMiddleware
from mlflow_middleware.testing import captured_traces
app = Flask(__name__)
MLflowMiddleware(app)
app.get("/")(lambda: ("ok", {"X-Request-ID": "r-own"}))
with captured_traces() as traces:
    response = app.test_client().get("/")
info = traces[0].info
print(response.headers.getlist("X-Request-ID"), info.client_request_id, info.tags["client_request_id"])
"""

DJANGO = """
import asyncio, django, sys
from django.conf import settings
OURS, THEIRS = "mlflow_middleware.django.TraceMiddleware", sys.argv[2]
settings.configure(
    SECRET_KEY="none", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    MIDDLEWARE=[THEIRS, OURS] if sys.argv[1] == "around" else [OURS, THEIRS],
    INSTALLED_APPS=["mlflow_middleware.django", "django_guid"], DJANGO_GUID={"GUID_HEADER_NAME": "X-Request-ID"},
    REQUEST_ID_RESPONSE_HEADER="X-Request-ID",
)
django.setup()
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from mlflow_middleware.testing import captured_traces
urlpatterns = [path("", lambda request: HttpResponse("ok"))]
async def asynchronous():
    return await AsyncClient().get("/")
with captured_traces() as traces:
    response = Client().get("/") if sys.argv[3] == "sync" else asyncio.run(asynchronous())
print([response.headers["X-Request-ID"]], traces[0].info.client_request_id, traces[0].info.tags["client_request_id"])
"""


def ids(program: str, *arguments: str) -> list[str]:
    """Run a program; return its output: the ids received, and those of the trace."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=clean_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.translate(str.maketrans("", "", "[]'")).split()


def test_flask() -> None:
    """A handler's own id."""
    library("flask")

    assert ids(FLASK) == ["r-own"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize(
    "name", ["django_guid.middleware.guid_middleware", "log_request_id.middleware.RequestIDMiddleware"]
)
@pytest.mark.parametrize("where", ["inside", "around"])
def test_django(where: str, name: str, how: str) -> None:
    """Its own middlewares, in either order."""
    library("django")
    library(name.partition(".")[0])
    received_ids, *stored = ids(DJANGO, where, name, how)

    assert stored == [received_ids] * 2


@pytest.mark.parametrize("how", ["iterators", "conductor"])
def test_falcons_test_client(how: str) -> None:
    """Headers, each of them and the addresses are iterators: the app sees them all."""
    falcon: Any = library("falcon.asgi")
    testing: Any = library("falcon.testing")

    class Echo:
        async def on_post(self, request: Any, response: Any) -> None:
            response.media = [request.get_header("X-User-ID"), request.host, await request.get_media()]

    app = falcon.App()
    app.add_route("/x", Echo())
    traced = asgi.TraceMiddleware(app)
    asking = {"headers": {"X-User-ID": "jane"}, "json": {"a": 1}}

    async def conducted() -> Any:
        async with testing.ASGIConductor(traced) as conductor:
            return await conductor.simulate_post("/x", **asking)

    async def function(scope: Any, receive: Any, send: Any) -> None:  # the only kind that it recognizes as an ASGI app
        await traced(scope, receive, send)

    with captured_traces() as traces:
        answer = asyncio.run(conducted()) if how == "conductor" else testing.simulate_post(function, "/x", **asking)

    assert answer.json == ["jane", "falconframework.org", {"a": 1}]
    assert [trace.info.tags["mlflow.trace.user"] for trace in traces] == ["jane"]
