"""A chat on Falcon, each request of it one MLflow trace, with its route's name and the exception behind a 500."""

from typing import Any

import falcon

from mlflow_middleware.request_trace import annotate
from mlflow_middleware.wsgi import TraceMiddleware


class TellRoute:
    """Names the trace; with ``falcon.asgi`` the method is a coroutine."""

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: object, params: Any) -> None:
        """Take the template that was found."""
        annotate(route=req.uri_template)


def tell_exception(req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
    """Record what is answered with a 500; with ``falcon.asgi`` this is a coroutine."""
    annotate(exception=error)
    raise falcon.HTTPInternalServerError from error


class Chat:
    """Answers, refuses, or fails."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, n: int) -> None:
        """Answer the chat."""
        if n == 0:
            raise falcon.HTTPNotFound
        resp.text = f"1 of {1 // (n - 1)}"


falcon_app = falcon.App(middleware=[TellRoute()])
falcon_app.add_error_handler(Exception, tell_exception)
falcon_app.add_route("/chats/{n:int}", Chat())
app = TraceMiddleware(falcon_app)
