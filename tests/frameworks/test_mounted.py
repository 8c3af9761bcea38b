"""Apps mounted in apps, across WSGI and ASGI: one trace, with the inner route below the outer mount."""

from __future__ import annotations

import warnings
from typing import Any

import a2wsgi
import asgiref.wsgi
import bottle
import mlflow
import pytest
from fastapi import FastAPI, HTTPException
from flask import Flask, abort
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from mlflow_middleware import asgi, wsgi
from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.flask import MLflowMiddleware
from mlflow_middleware.request_trace import annotate
from tests.frameworks.asking import Asked, ask

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecated, but in use
    from starlette.middleware.wsgi import WSGIMiddleware

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the frameworks' own

WsgiToAsgi: Any = asgiref.wsgi.WsgiToAsgi
DIVIDED = "integer division or modulo by zero"
BRIDGES = [a2wsgi.WSGIMiddleware, WsgiToAsgi, WSGIMiddleware]


def flask_app() -> Any:
    app = Flask("inner")
    MLflowMiddleware(app)

    @app.get("/chats/<int:n>")
    def chat(n: int) -> str:
        if n == 0:
            abort(404)
        with mlflow.start_span("inside"):
            return f"1 of {1 // (n - 1)}"

    return app


def django_wsgi() -> Any:
    from tests.frameworks import django_project

    return django_project.wsgi


def django_asgi() -> Any:
    from tests.frameworks import django_project

    return django_project.asgi


def mounted(inner: Any, at: str) -> FastAPI:
    """A traced FastAPI app with another app mounted in it."""
    app = FastAPI()
    app.add_middleware(TraceMiddleware)
    app.mount(at, inner)
    return app


OUTCOMES = [(2, 200, "OK", ()), (0, 404, "OK", ()), (1, 500, "ERROR", (DIVIDED,))]


@pytest.mark.parametrize(("n", "status", "state", "exceptions"), OUTCOMES)
@pytest.mark.parametrize(("at", "prefix"), [("/wsgi", "/wsgi"), ("/of/{tenant}", "/of/acme")])
@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("inner", [flask_app, django_wsgi])
def test_a_wsgi_app_in_an_asgi_app(
    inner: Any, bridge: Any, at: str, prefix: str, n: int, status: int, state: str, exceptions: tuple[str, ...]
) -> None:
    """Through each existing bridge."""
    app = mounted(bridge(inner()), at)
    answer, asked = ask(app, f"{prefix}/chats/{n}", is_asgi=True)

    assert answer.status == status
    assert asked == Asked(f"GET {at}/chats/<int:n>", state, exceptions)


def bottle_app() -> Any:
    app = bottle.Bottle()

    @app.get("/chats/<n:int>")
    def chat(n: int) -> str:
        if n == 0:
            bottle.abort(404)
        return f"1 of {1 // (n - 1)}"

    return app


@pytest.mark.parametrize(("n", "status", "state", "exceptions"), OUTCOMES)
@pytest.mark.parametrize(("at", "prefix"), [("/wsgi", "/wsgi"), ("/of/{tenant}", "/of/acme"), ("/", "")])
@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_wsgi_app_with_the_plain_middleware(
    bridge: Any, at: str, prefix: str, n: int, status: int, state: str, exceptions: tuple[str, ...]
) -> None:
    """It reports as much to the outer trace as an adapter does."""
    _, asked = ask(mounted(bridge(wsgi.TraceMiddleware(bottle_app())), at), f"{prefix}/chats/{n}", is_asgi=True)

    assert asked == Asked(f"GET {at.rstrip('/')}/chats/<n:int>", state, exceptions)


@pytest.mark.parametrize(("n", "status", "state", "exceptions"), OUTCOMES)
@pytest.mark.parametrize(("at", "prefix"), [("/asgi", "/asgi"), ("/of/{tenant}", "/of/acme")])
def test_django_in_an_asgi_app(
    at: str, prefix: str, n: int, status: int, state: str, exceptions: tuple[str, ...]
) -> None:
    """Without a bridge."""
    answer, asked = ask(mounted(django_asgi(), at), f"{prefix}/chats/{n}", is_asgi=True)

    assert answer.status == status
    assert asked == Asked(f"GET {at}/chats/<int:n>", state, exceptions)


@pytest.mark.parametrize("inner", [lambda: WsgiToAsgi(flask_app()), lambda: WsgiToAsgi(django_wsgi()), django_asgi])
def test_the_servers_own_prefix_is_not_part_of_the_route(inner: Any) -> None:
    """As with a FastAPI app alone."""

    async def below_a_proxy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "root_path": "/api", "path": f"/api{scope['path']}"}
        await mounted(inner(), "/in")(scope, receive, send)

    _, asked = ask(below_a_proxy, "/in/chats/2", is_asgi=True)

    assert asked == Asked("GET /in/chats/<int:n>", "OK", ())


@pytest.mark.parametrize("inner", [lambda: WsgiToAsgi(flask_app()), django_asgi])
def test_a_hand_written_dispatcher(inner: Any) -> None:
    """The plain middleware wraps a few lines that mount an app with a copy of the scope."""
    app = inner()

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await Starlette()(scope, receive, send)
        else:
            await app({**scope, "root_path": "/in"}, receive, send)

    _, asked = ask(asgi.TraceMiddleware(dispatch), "/in/chats/2", is_asgi=True)

    assert asked == Asked("GET /in/chats/<int:n>", "OK", ())


@pytest.mark.parametrize(("around", "at"), [(wsgi.TraceMiddleware, "/in"), (lambda app: app, "")])
def test_django_in_a_wsgi_app(around: Any, at: str) -> None:
    """The plain middleware wraps both, or Django's wraps the inner one."""
    app = around(DispatcherMiddleware(wsgi_nothing, {"/in": django_wsgi()}))
    _, asked = ask(app, "/in/chats/2", is_asgi=False)

    assert asked == Asked(f"GET {at}/chats/<int:n>", "OK", ())


def wsgi_nothing(environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return []


def fastapi_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(TraceMiddleware)

    @app.get("/chats/{n}")
    def chat(n: int) -> str:
        if n == 0:
            raise HTTPException(404)
        return f"1 of {1 // (n - 1)}"

    return app


@pytest.mark.parametrize(("n", "status", "state", "exceptions"), OUTCOMES)
def test_an_asgi_app_in_a_flask_app(n: int, status: int, state: str, exceptions: tuple[str, ...]) -> None:
    """The reverse of a WSGI app in an ASGI app."""
    app = Flask("outer")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/in": a2wsgi.ASGIMiddleware(fastapi_app())})  # type: ignore[method-assign]
    MLflowMiddleware(app)
    answer, asked = ask(app, f"/in/chats/{n}", is_asgi=False)

    assert answer.status == status
    assert asked == Asked("GET /in/chats/{n}", state, exceptions)


def test_an_annotated_route_beats_both() -> None:
    """The route that `annotate` received counts, whichever app is mounted."""
    inner = flask_app()

    @inner.get("/said/<int:n>")
    def said(n: int) -> str:
        annotate(route="/other/{n}")
        return ""

    _, asked = ask(mounted(WsgiToAsgi(inner), "/in"), "/in/said/3", is_asgi=True)

    assert asked.name == "GET /other/{n}"


def test_an_app_as_a_routes_endpoint() -> None:
    """It sees the whole path, and reports more than the catch-all route."""
    app = Starlette(routes=[Route("/{rest:path}", WsgiToAsgi(flask_app()), methods=None)])
    _, asked = ask(TraceMiddleware(app), "/chats/2", is_asgi=True)

    assert asked.name == "GET /chats/<int:n>"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/nothing", "GET"),
        ("/v1/nothing", "GET /v1"),
        ("/v1/chats/2", "GET /v1/chats/{n}"),
        ("/chats/2", "GET /chats/{n}"),
    ],
)
def test_below_a_mount_at_the_root(path: str, name: str) -> None:
    """A path that it does not serve has no route, not `/`."""
    app = Starlette(routes=[Mount("/v1", fastapi_app()), Mount("/", fastapi_app())])
    _, asked = ask(asgi.TraceMiddleware(app, include="unrouted"), path, is_asgi=True)

    assert asked.name == name
