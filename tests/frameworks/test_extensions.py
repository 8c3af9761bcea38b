"""Flask extensions that handle exceptions in their own ways: the status of the answer decides about errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort

from mlflow_middleware.flask import MLflowMiddleware
from tests.frameworks.asking import Asked, ask_all

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the extensions' own

DIVIDED = "integer division or modulo by zero"


def answer(n: int) -> str:
    """Answer, refuse with the requested status, or fail."""
    if n >= 400:
        abort(n)
    if n == 2:
        raise LookupError("no such chat")
    return f"1 of {1 // (n - 1)}"


def restx(app: Flask) -> None:
    import flask_restx

    api = flask_restx.Api(app)

    @api.errorhandler(LookupError)
    def not_there(error: LookupError) -> Any:
        return {"message": str(error)}, 404

    parser = api.parser()
    parser.add_argument("limit", type=int)

    @api.route("/chats/<int:n>")
    class Chat(flask_restx.Resource):
        def get(self, n: int) -> str:
            parser.parse_args()
            return answer(n)


def restful(app: Flask) -> None:
    import flask_restful
    from flask_restful import reqparse

    class Api(flask_restful.Api):
        def handle_error(self, e: Exception) -> Any:
            return ({"message": str(e)}, 404) if isinstance(e, LookupError) else super().handle_error(e)

    class Chat(flask_restful.Resource):
        def get(self, n: int) -> str:
            parser = reqparse.RequestParser()
            parser.add_argument("limit", type=int, location="args")
            parser.parse_args()
            return answer(n)

    Api(app).add_resource(Chat, "/chats/<int:n>")


def smorest(app: Flask) -> None:
    import flask_smorest

    app.config.update(API_TITLE="chats", API_VERSION="v1", OPENAPI_VERSION="3.0.2")
    api = flask_smorest.Api(app)
    blueprint = flask_smorest.Blueprint("chats", "chats")

    @blueprint.route("/chats/<int:n>")
    def chat(n: int) -> str:
        return answer(n)

    api.register_blueprint(blueprint)
    app.register_error_handler(LookupError, lambda error: ("", 404))


def classful(app: Flask) -> None:
    import flask_classful

    class ChatsView(flask_classful.FlaskView):
        @flask_classful.route("/<int:n>")
        def get(self, n: int) -> str:
            return answer(n)

    ChatsView.register(app, route_base="/chats")
    app.register_error_handler(LookupError, lambda error: ("", 404))


def plain(app: Flask) -> None:
    app.add_url_rule("/chats/<int:n>", view_func=answer)
    app.register_error_handler(LookupError, lambda error: ("", 404))


@pytest.mark.parametrize("extend", [restx, restful, smorest, classful, plain])
@pytest.mark.parametrize("sample_ratio", [1.0, 0.0])
def test_the_status_decides(extend: Callable[[Flask], None], sample_ratio: float) -> None:
    """Refusals are no errors and not kept as such; a 500 is an error, with the exception behind it, if any."""
    app = Flask("chats")
    extend(app)
    MLflowMiddleware(app, sample_ratio=sample_ratio)
    asked = ask_all(app, [f"/chats/{n}" for n in (3, 404, 401, 403, 2, 503, 1)], is_asgi=False)

    assert [answer.status for answer, _ in asked] == [200, 404, 401, 403, 404, 503, 500]
    name = "GET /chats/<int:n>"
    kept = [[Asked(name, "OK", ())]] * 5 if sample_ratio else [[]] * 5
    assert [traces for _, traces in asked] == [*kept, [Asked(name, "ERROR", ())], [Asked(name, "ERROR", (DIVIDED,))]]


@pytest.mark.parametrize("extend", [restx, restful])
def test_a_bad_argument_and_a_wrong_method_are_no_errors(extend: Callable[[Flask], None]) -> None:
    """They are exceptions for the extensions' own handlers, too."""
    app = Flask("chats")
    extend(app)
    MLflowMiddleware(app, include="unrouted")
    app.add_url_rule("/post", view_func=lambda: "", methods=["POST"])
    asked = ask_all(app, ["/chats/3?limit=many", "/post", "/nothing"], is_asgi=False)

    assert [answer.status for answer, _ in asked] == [400, 405, 404]
    assert [traces for _, traces in asked] == [
        [Asked("GET /chats/<int:n>", "OK", ())],
        [Asked("GET", "OK", ())],
        [Asked("GET", "OK", ())],
    ]


def test_an_exception_that_reaches_the_server_is_recorded() -> None:
    """Flask propagates it, as in tests, so that no handler answers it."""
    app = Flask("chats")
    restx(app)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    MLflowMiddleware(app)
    ((answer, traces),) = ask_all(app, ["/chats/1"], is_asgi=False)

    assert answer.status == 500
    assert traces == [Asked("GET /chats/<int:n>", "ERROR", (DIVIDED,))]


def test_one_that_breaks_a_stream_is_an_error() -> None:
    """It is an error although it is an HTTP exception: the answer began as a 200."""

    def broken() -> Any:
        def chunks() -> Any:
            yield "1"
            abort(404)

        return chunks()

    app = Flask("chats")
    app.add_url_rule("/broken", view_func=broken)
    MLflowMiddleware(app)
    ((_, traces),) = ask_all(app, ["/broken"], is_asgi=False)

    assert [(each.state, len(each.exceptions)) for each in traces] == [("ERROR", 1)]
