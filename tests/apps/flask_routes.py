"""Flask apps by a factory: blueprints, error handlers, hooks, a mounted app, and the app's own sessions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, g, jsonify, request, session, stream_with_context
from flask.sessions import SessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from mlflow_middleware.flask import MLflowMiddleware
from mlflow_middleware.request_trace import annotate, current
from tests.apps import afterwards


class Session(dict[str, Any], SessionMixin):
    """The app's session data of a visitor."""


class Sessions(SessionInterface):
    """Keeps a visitor's number in a plain cookie."""

    def open_session(self, app: Flask, request: Any) -> Session:
        return Session(visits=int(request.cookies.get("visits", 0)))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        response.set_cookie("visits", str(session["visits"]))


shops = Blueprint("shops", __name__, url_prefix="/shops")
tracing = MLflowMiddleware()
torn_down: dict[str, str] = {}


@shops.get("/<int:shop_id>")
def shop(shop_id: int) -> ResponseReturnValue:
    return jsonify(shop=shop_id)


@shops.before_request
def only_with_a_key() -> ResponseReturnValue | None:
    return None if "key" in request.args else ("who are you?", 401)


pages = Blueprint("pages", __name__)


@pages.app_errorhandler(LookupError)
def not_there(error: LookupError) -> ResponseReturnValue:
    return jsonify(missing=str(error)), 404


@pages.app_errorhandler(ArithmeticError)
def own_page(error: ArithmeticError) -> ResponseReturnValue:
    return "our own page", 500


@pages.app_errorhandler(500)
def last_resort(error: Exception) -> ResponseReturnValue:
    return "sorry", 500


@pages.get("/missing")
def missing() -> ResponseReturnValue:
    raise LookupError("no such chat")


@pages.get("/divide")
def divide() -> ResponseReturnValue:
    return str(1 // 0)


@pages.get("/fail")
def fail() -> ResponseReturnValue:
    raise RuntimeError("the model is unavailable")


@pages.get("/visit")
def visit() -> ResponseReturnValue:
    session["visits"] += 1
    return jsonify(visits=session["visits"])


@pages.get("/count/<int:until>")
def count(until: int) -> ResponseReturnValue:
    def numbers() -> Iterator[str]:
        for number in range(until):
            annotate(tags={"last-number": number})
            yield f"{number}\n"

    g.counting = "yes"
    return Response(stream_with_context(numbers()), mimetype="text/plain")


@pages.teardown_app_request
def tear_down(error: BaseException | None) -> None:
    trace = current()
    if trace is not None and "counting" in g:
        torn_down[str(trace.identity.request_id)] = str(trace.trace_id)


@pages.get("/torn-down/<request_id>")
def was_torn_down(request_id: str) -> ResponseReturnValue:
    return jsonify(trace_id=torn_down.get(request_id))


@pages.get("/after")
def after() -> ResponseReturnValue:
    response = Response("answer", mimetype="text/plain")
    response.call_on_close(afterwards.begin)
    response.call_on_close(afterwards.end)
    return response


@pages.get("/open/<request_id>")
def open_gate(request_id: str) -> ResponseReturnValue:
    afterwards.open_gate(request_id)
    return "open"


@pages.get("/health")
def health() -> ResponseReturnValue:
    return ""


def create(name: str) -> Flask:
    """An application factory that carelessly sets up tracing twice."""
    app = Flask(name)
    app.session_interface = Sessions()
    tracing.init_app(app)
    tracing.init_app(app)
    app.register_blueprint(shops, url_prefix="/v1/shops")
    app.register_blueprint(pages)
    return app


app = create("outer")
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/mounted": create("inner")})  # type: ignore[method-assign]
