"""A chat on Pyramid. Each request is one MLflow trace with its route's name and the exception behind a 500."""

from pyramid.config import Configurator
from pyramid.events import ContextFound
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from pyramid.response import Response

from mlflow_middleware.request_trace import annotate
from mlflow_middleware.wsgi import TraceMiddleware


def name_trace(event: ContextFound) -> None:
    """Name the trace, and record an exception that an exception view handles; others are recorded anyway."""
    request = event.request
    if request.matched_route:
        annotate(route=request.matched_route.pattern)
    request.add_response_callback(lambda request, response: annotate(exception=request.exception))


def chat(request: Request) -> Response:
    """Answer, refuse, or fail."""
    n = int(request.matchdict["n"])
    if n == 0:
        raise HTTPNotFound
    return Response(f"1 of {1 // (n - 1)}")


def failed(error: Exception, request: Request) -> Response:
    """Handle any exception."""
    return Response("We are sorry.", status=500)


with Configurator() as config:
    config.add_subscriber(name_trace, ContextFound)
    config.add_route("chat", "/chats/{n}")
    config.add_view(chat, route_name="chat")
    config.add_exception_view(failed, context=Exception)
    app = TraceMiddleware(config.make_wsgi_app())
