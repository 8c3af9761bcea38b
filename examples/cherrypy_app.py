"""A chat on CherryPy. Each request is one MLflow trace with a name and the exception behind a 500."""

import sys

import cherrypy

from mlflow_middleware.request_trace import annotate
from mlflow_middleware.wsgi import TraceMiddleware


def record_exception() -> None:
    """Record the exception that CherryPy turns into a 500."""
    annotate(exception=sys.exc_info()[1])


cherrypy.tools.record_exception = cherrypy.Tool("before_error_response", record_exception)


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
app = TraceMiddleware(cherrypy.Application(Chats(), "", {"/": {"tools.record_exception.on": True}}))
