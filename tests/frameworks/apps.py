"""The same chat on each framework: ``/chats/7`` answers, ``/chats/0`` is the framework's 404, ``/chats/1`` fails."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mlflow_middleware import asgi, wsgi
from mlflow_middleware.request_trace import annotate

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def text_of(n: int) -> str:
    """Answer, or fail."""
    return f"1 of {1 // (n - 1)}"


# --- ASGI ---


def litestar() -> Any:
    from litestar import Litestar, Router, get
    from litestar.exceptions import NotFoundException

    @get("/chats/{n:int}")
    async def chat(n: int) -> str:
        if n == 0:
            raise NotFoundException
        return text_of(n)

    return Litestar([Router("/v1", route_handlers=[chat])])


def litestar_inside() -> Any:
    """Build the app with the middleware in Litestar's own list, so that its exceptions pass through."""
    from litestar import Litestar, get
    from litestar.exceptions import NotFoundException

    @get("/v1/chats/{n:int}")
    async def chat(n: int) -> str:
        if n == 0:
            raise NotFoundException
        return text_of(n)

    return Litestar([chat], middleware=[asgi.TraceMiddleware])


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Host, Mount, Route, Router

    async def chat(request: Request) -> PlainTextResponse:
        if request.path_params["n"] == 0:
            raise HTTPException(404)
        return PlainTextResponse(text_of(request.path_params["n"]))

    routes = [Route("/chats/{n:int}", chat)]
    return Starlette(routes=[Host("{name}.example", Router([])), Mount("/", routes=[Mount("/v1", routes=routes)])])


def fastapi() -> Any:
    from fastapi import APIRouter, FastAPI, HTTPException

    router = APIRouter(prefix="/chats")

    @router.get("/{n}")
    def chat(n: int) -> str:
        if n == 0:
            raise HTTPException(404)
        return text_of(n)

    inner, outer = FastAPI(), FastAPI()
    inner.include_router(router)
    outer.mount("/{version}", inner)
    return outer


def fasthtml() -> Any:
    from fasthtml.common import HTTPException, fast_app

    app, route = fast_app()

    @route("/v1/chats/{n}")
    def get(n: int) -> str:
        if n == 0:
            raise HTTPException(404)
        return text_of(n)

    return app


def ravyn() -> Any:
    from ravyn import Gateway, Include, Ravyn, get
    from ravyn.exceptions import NotFound

    @get()
    def chat(n: int) -> str:
        if n == 0:
            raise NotFound
        return text_of(n)

    return Ravyn(routes=[Include("/v1", routes=[Gateway("/chats/{n:int}", handler=chat)])])


SPECIFICATION = {
    "openapi": "3.0.0",
    "info": {"title": "chats", "version": "1"},
    "servers": [{"url": "/v1"}],
    "paths": {
        "/chats/{n}": {
            "get": {
                "operationId": "handlers_of_connexion.chat",
                "parameters": [{"name": "n", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "responses": {"200": {"description": "the answer"}},
            }
        }
    },
}


def _connexion(app: Any) -> Any:
    from connexion.exceptions import ProblemException

    def chat(n: int) -> str:
        if n == 0:
            raise ProblemException(status=404)
        return text_of(n)

    sys.modules["handlers_of_connexion"] = handlers = types.ModuleType("handlers_of_connexion")
    vars(handlers)["chat"] = chat
    app.add_api(SPECIFICATION)
    return app


def connexion_flask() -> Any:
    from connexion import FlaskApp

    return _connexion(FlaskApp("chats"))


def connexion_async() -> Any:
    from connexion import AsyncApp

    return _connexion(AsyncApp("chats"))


def falcon_asgi() -> Any:
    import falcon.asgi

    class NameRoute:
        async def process_resource(self, req: Any, resp: Any, resource: object, params: Any) -> None:
            annotate(route=req.uri_template)

    async def record_exception(req: Any, resp: Any, error: Exception, params: Any) -> None:
        annotate(exception=error)
        raise falcon.HTTPInternalServerError from error

    class Chat:
        async def on_get(self, req: Any, resp: Any, n: int) -> None:
            if n == 0:
                raise falcon.HTTPNotFound
            resp.text = text_of(n)

    app = falcon.asgi.App(middleware=[NameRoute()])
    app.add_error_handler(Exception, record_exception)
    app.add_route("/v1/chats/{n:int}", Chat())
    return app


# --- WSGI ---


def bottle() -> Any:
    from bottle import Bottle, HTTPError

    inner, outer = Bottle(), Bottle()

    @inner.get("/chats/<n:int>")
    def chat(n: int) -> str:
        if n == 0:
            raise HTTPError(404)
        return text_of(n)

    outer.mount("/v1/", inner)
    outer.catchall = inner.catchall = True
    return outer


def _flask(app: Any) -> Any:
    from flask import Blueprint, abort

    blueprint = Blueprint("chats", __name__, url_prefix="/v1")

    @blueprint.get("/chats/<int:n>")
    def chat(n: int) -> str:
        if n == 0:
            abort(404)
        return text_of(n)

    app.register_blueprint(blueprint)
    return app


def flask() -> Any:
    from flask import Flask

    return _flask(Flask("chats"))


def apiflask() -> Any:
    from apiflask import APIFlask

    return _flask(APIFlask("chats"))


def dash() -> Any:
    import dash

    app = dash.Dash("chats")
    app.layout = dash.html.Div()
    return _flask(app.server)


def pyramid_traversal() -> Any:
    """Build the app without an exception view: exceptions reach the server."""
    from pyramid.config import Configurator
    from pyramid.httpexceptions import HTTPNotFound
    from pyramid.response import Response

    class Chats(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            if not key.isdecimal() and key not in ("v1", "chats"):
                raise KeyError(key)
            return int(key) if key.isdecimal() else self

    def chat(context: int, request: Any) -> Response:
        annotate(route="/v1/chats/{n}")
        if context == 0:
            raise HTTPNotFound
        return Response(text_of(context))

    with Configurator(root_factory=lambda request: Chats()) as config:
        config.add_view(chat, context=int)
        return config.make_wsgi_app()


def werkzeug() -> Any:
    from werkzeug.exceptions import HTTPException, NotFound
    from werkzeug.routing import Map, Rule
    from werkzeug.wrappers import Request, Response

    rules = Map([Rule("/v1/chats/<int:n>")])

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            rule, values = rules.bind_to_environ(environ).match(return_rule=True)
            annotate(route=rule.rule)
            if values["n"] == 0:
                raise NotFound
            answer: Any = Response(text_of(values["n"]))
        except HTTPException as error:
            answer = error
        Request(environ)
        result: Iterable[bytes] = answer(environ, start_response)
        return result

    return app


def example(name: str) -> Any:
    """Return the app of a file in ``examples/``, which has the middleware already."""
    return importlib.import_module(f"examples.{name}_app").app


ASGI = {
    "litestar": (litestar, "/v1/chats/{n}"),
    "starlette": (starlette, "/v1/chats/{n}"),
    "fastapi": (fastapi, "/{version}/chats/{n}"),
    "fasthtml": (fasthtml, "/v1/chats/{n}"),
    "ravyn": (ravyn, "/v1/chats/{n}"),
    "connexion-flask": (connexion_flask, "/v1/chats/{n}"),
    "connexion-async": (connexion_async, "/v1/chats/{n}"),
    "falcon": (falcon_asgi, "/v1/chats/{n:int}"),
}
"""Each app, and its route."""

WSGI = {
    "bottle": (bottle, "/v1/chats/<n:int>"),
    "flask": (flask, "/v1/chats/<int:n>"),
    "apiflask": (apiflask, "/v1/chats/<int:n>"),
    "dash": (dash, "/v1/chats/<int:n>"),
    "pyramid": (pyramid_traversal, "/v1/chats/{n}"),
    "werkzeug": (werkzeug, "/v1/chats/<int:n>"),
}

EXAMPLES = {
    "quart": "/chats/<int:n>",
    "sanic": "/chats/<n:int>",
    "blacksheep": "/chats/{int:n}",
    "falcon": "/chats/{n:int}",
    "pyramid": "/chats/{n}",
    "cherrypy": "/chats/{n}",
}

IS_ASGI = {("example", "quart"), ("example", "sanic"), ("example", "blacksheep")}

ANSWERS_IN_SILENCE = {"flask", "apiflask", "dash"}
"""Frameworks that hide an exception that they handle; for Flask, our adapter reports it."""


def traced(name: str, protocol: str, **options: Any) -> tuple[Any, str]:
    """Return an app with the plain middleware around it, and its route."""
    build, route = {"asgi": ASGI, "wsgi": WSGI}[protocol][name]
    return {"asgi": asgi, "wsgi": wsgi}[protocol].TraceMiddleware(build(), **options), route
