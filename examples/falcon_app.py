"""A chat on Falcon. Each request is one MLflow trace with its route's name and the exception behind a 500."""

from typing import Any

import falcon

from mlflow_middleware.request_trace import annotate
from mlflow_middleware.wsgi import TraceMiddleware


class NameRoute:
    """Names the trace; with ``falcon.asgi`` the method is a coroutine."""

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: object, params: Any) -> None:
        """Name the trace by the template that matched."""
        annotate(route=req.uri_template)


def record_exception(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
    """Record the exception behind a 500; with ``falcon.asgi`` this is a coroutine."""
    annotate(exception=error)
    raise falcon.HTTPInternalServerError from error


class Chat:
    """Answers, refuses, or fails."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, n: int) -> None:
        """Answer the chat."""
        if n == 0:
            raise falcon.HTTPNotFound
        resp.text = f"1 of {1 // (n - 1)}"


falcon_app = falcon.App(middleware=[NameRoute()])
falcon_app.add_error_handler(Exception, record_exception)
falcon_app.add_route("/chats/{n:int}", Chat())
app = TraceMiddleware(falcon_app)
