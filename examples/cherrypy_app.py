"""A chat on CherryPy, each request of it one MLflow trace, with a name for it and the exception behind a 500."""

import sys

import cherrypy

from mlflow_middleware.request_trace import annotate
from mlflow_middleware.wsgi import TraceMiddleware


def tell_exception() -> None:
    """Record what CherryPy answers with a 500."""
    annotate(exception=sys.exc_info()[1])


cherrypy.tools.tell_exception = cherrypy.Tool("before_error_response", tell_exception)


class Chats:
    """Answers, refuses, or fails."""

    @cherrypy.expose
    def chats(self, n: str) -> str:
        """Answer; CherryPy has no templates, so the handler names the trace."""
        annotate(route="/chats/{n}")
        if n == "0":
            raise cherrypy.NotFound
        return f"1 of {1 // (int(n) - 1)}"


cherrypy.config.update({"environment": "embedded"})
app = TraceMiddleware(cherrypy.Application(Chats(), "", {"/": {"tools.tell_exception.on": True}}))
