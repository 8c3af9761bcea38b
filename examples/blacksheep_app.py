"""A chat on BlackSheep. Each request is one MLflow trace with its route's name and the exception behind a 500."""

from collections.abc import Awaitable, Callable

from blacksheep import Application, Request, Response, text
from blacksheep.exceptions import NotFound

from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request_trace import annotate

blacksheep_app = Application()


async def name_trace(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    """Name the trace, and record the exception that BlackSheep turns into a 500."""
    if match := blacksheep_app.router.get_match(request):
        annotate(route=match.pattern.decode())
    try:
        return await handler(request)
    except Exception as error:
        annotate(exception=error)
        raise


blacksheep_app.middlewares.append(name_trace)


@blacksheep_app.router.get("/chats/{int:n}")
def chat(n: int) -> Response:
    """Answer, refuse, or fail."""
    if n == 0:
        raise NotFound
    return text(f"1 of {1 // (n - 1)}")


app = TraceMiddleware(blacksheep_app)
