"""A chat on Sanic's ASGI app. Each request is one MLflow trace with its route's name and the exception behind a 500."""

from sanic import Request, Sanic, text
from sanic.exceptions import NotFound
from sanic.handlers import ErrorHandler
from sanic.response import HTTPResponse

from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request_trace import annotate


class RecordException(ErrorHandler):
    """Records the exception that Sanic turns into a 500."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Let Sanic answer as usual."""
        annotate(exception=exception)
        return super().default(request, exception)


sanic_app = Sanic("chats", error_handler=RecordException())


@sanic_app.on_request
async def name_route(request: Request) -> None:
    """Name the trace."""
    annotate(route=request.uri_template)


@sanic_app.get("/chats/<n:int>")
async def chat(request: Request, n: int) -> HTTPResponse:
    """Answer, refuse, or fail."""
    if n == 0:
        raise NotFound
    return text(f"1 of {1 // (n - 1)}")


app = TraceMiddleware(sanic_app)
