"""For FastAPI and Starlette apps.

::

    from mlflow_middleware.fastapi import TraceMiddleware, feedback_router

    app.add_middleware(TraceMiddleware)  # options as keywords: session_id_header="X-Chat-ID"

    app.include_router(feedback_router())  # users' feedback: see mlflow_middleware.fastapi.feedback

Add it last: middleware added later runs further out, and what is outside sees neither the trace nor its identity.
The answer to an exception that no handler took is made outside of all added middleware; it carries our headers only
when the whole app is wrapped: ``app = TraceMiddleware(app)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_middleware import asgi
from mlflow_middleware.fastapi.feedback import feedback_route, feedback_router
from mlflow_middleware.fastapi.metrics import metrics_route, metrics_router
from mlflow_middleware.request_trace import (
    annotate,
    carry,
    continue_trace,
    drop_trace,
    job_trace,
    keep_trace,
    outbound_headers,
)
from mlflow_middleware.settings import Settings, SettingsError

__all__ = [
    "TraceMiddleware",
    "annotate",
    "carry",
    "continue_trace",
    "drop_trace",
    "feedback_route",
    "feedback_router",
    "job_trace",
    "keep_trace",
    "metrics_route",
    "metrics_router",
    "outbound_headers",
]


class TraceMiddleware(asgi.TraceMiddleware):
    """`mlflow_middleware.asgi.TraceMiddleware`, which reports wrong options in time.

    Starlette builds its middleware as late as the server starts the app's lifespan, and a server takes an exception
    there for an app without lifespan, and goes on. So a wrong option fails the start-up in the protocol's own words.
    """

    _problem: SettingsError | None = None

    def set_up(self, settings: Settings | None, options: Mapping[str, object]) -> None:
        """Keep what is wrong with the options for the lifespan."""
        try:
            super().set_up(settings, options)
        except SettingsError as error:
            self._problem = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if self._problem is None:
            await super().__call__(scope, receive, send)
        elif scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self._problem)})
        else:
            raise self._problem
