"""Middleware, feedback and metrics for FastAPI and Starlette apps.

::

    from mlflow_middleware.fastapi import TraceMiddleware, feedback_router

    app.add_middleware(TraceMiddleware)  # options as keywords: session_id_header="X-Chat-ID"

    app.include_router(feedback_router())  # users' feedback: see mlflow_middleware.fastapi.feedback

Add it last: middleware that is added later runs outside it, where neither the trace nor its identity is available.
Starlette creates the response to an unhandled exception outside all added middleware; it has the middleware's headers
only if the whole app is wrapped: ``app = TraceMiddleware(app)``.
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
    """`mlflow_middleware.asgi.TraceMiddleware`, which reports wrong options at start-up.

    Starlette creates its middleware only when the server starts the app's lifespan. Servers interpret an exception
    there as an app without lifespan support, and continue. So a wrong option is reported by a
    ``lifespan.startup.failed`` message.
    """

    _problem: SettingsError | None = None

    def set_up(self, settings: Settings | None, options: Mapping[str, object]) -> None:
        """Apply the settings, but keep an error for the lifespan."""
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
