"""A chat on Quart. Each request is one MLflow trace with its route's name and the exception behind a 500."""

from typing import Any

from quart import Quart, abort, got_request_exception, request

from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request_trace import annotate

app = Quart(__name__)
app.asgi_app = TraceMiddleware(app.asgi_app)


@app.before_request
async def name_route() -> None:
    """Name the trace."""
    if request.url_rule:
        annotate(route=request.url_rule.rule)


@got_request_exception.connect_via(app)
async def record_exception(sender: Quart, exception: Exception, **_: Any) -> None:
    """Record the exception that Quart turns into a 500."""
    annotate(exception=exception)


@app.get("/chats/<int:n>")
async def chat(n: int) -> str:
    """Answer, refuse, or fail."""
    if n == 0:
        abort(404)
    return f"1 of {1 // (n - 1)}"
