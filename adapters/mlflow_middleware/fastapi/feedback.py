"""The feedback route for FastAPI and Starlette apps.

::

    app.include_router(feedback_router())  # FastAPI: POST /feedback
    app.routes.append(feedback_route())  # Starlette

``mlflow_middleware.feedback`` and FastAPI's OpenAPI schema describe requests and responses. The route uses the options
of the ``TraceMiddleware`` around it, wherever it is included; ``feedback_router(prefix="/api")`` makes it
``/api/feedback``. Options given here as keywords override them; an app without that middleware sets all options here.
The tracking server is called in a thread.

For a page on another origin, the app's ``CORSMiddleware`` must allow the headers ``Content-Type``, ``X-Feedback-Token``
and those for session and user.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mlflow_middleware import asgi, feedback
from mlflow_middleware._internal import feedback_token
from mlflow_middleware.request_trace import SETTINGS_KEY

if TYPE_CHECKING:
    from fastapi import APIRouter

Endpoint = Callable[[Request], Awaitable[Response]]


def feedback_router(prefix: str = "", **options: object) -> APIRouter:
    """Create a router with ``POST /feedback``.

    Args:
        prefix: The path prefix before ``/feedback``.
        options: Options of ``Settings``; they override those of the middleware around the route.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    from fastapi import APIRouter  # optional for users of Starlette

    token = {
        "name": feedback_token.HEADER,
        "in": "header",
        "schema": {"type": "string"},
        "description": "The response header of this name, if feedback has to be signed.",
    }
    schema = feedback.Feedback.model_json_schema()
    router = APIRouter(prefix=prefix)
    router.add_api_route(
        "/feedback",
        _endpoint(options),
        methods=["POST"],
        name="feedback",
        summary="Rate an answer",
        response_model=feedback.Accepted,
        responses={
            status: {"model": feedback.Problem, "description": meaning} for status, meaning in feedback.PROBLEMS.items()
        },
        openapi_extra={
            "parameters": [token],
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        },
    )
    return router


def feedback_route(prefix: str = "", **options: object) -> Route:
    """Create a Starlette route for ``POST /feedback``.

    Args:
        prefix: The path prefix before ``/feedback``.
        options: Options of ``Settings``; they override those of the middleware around the route.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    return Route(f"{prefix}/feedback", _endpoint(options), methods=["POST"], name="feedback")


def _endpoint(options: dict[str, object]) -> Endpoint:
    settings_for = feedback.settings_of_route(options)

    async def endpoint(request: Request) -> Response:
        settings = settings_for(request.scope.get(SETTINGS_KEY))
        body = await _read(request)
        answered = await run_in_threadpool(feedback.answer, asgi.exchange_of(request.scope), body, settings)
        return Response(answered.body, answered.status, answered.headers)

    return endpoint


async def _read(request: Request) -> bytes:
    """Read at most one byte more of the body than allowed; if the client disconnects, return the part received."""
    body = b""
    with contextlib.suppress(ClientDisconnect):
        async for chunk in request.stream():
            body += chunk
            if len(body) > feedback.MAX_BODY:
                break
    return body
