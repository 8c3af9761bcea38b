"""The feedback route for FastAPI and Starlette apps.

::

    app.include_router(feedback_router())  # FastAPI: POST /feedback
    app.routes.append(feedback_route())  # Starlette

What it takes and answers is in ``mlflow_middleware.feedback``, and in FastAPI's OpenAPI schema. It works with the
options of the ``TraceMiddleware`` around it, wherever it is included; ``feedback_router(prefix="/api")`` makes it
``/api/feedback``. Options given here, as keywords, are laid over those; an app without that middleware gives them all.
The server is asked in a thread.

A page on another origin needs the app's ``CORSMiddleware`` to allow the headers ``Content-Type``, ``X-Feedback-Token``
and those that name session and user.
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
    """Make a router with ``POST /feedback``.

    Args:
        prefix: What stands before ``/feedback``.
        options: What ``Settings`` knows; they are laid over the options of the middleware around it.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    from fastapi import APIRouter  # Starlette's users need not have it

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
    """Make Starlette's route for ``POST /feedback``; arguments and errors as for `feedback_router`."""
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
    """The body, up to a byte more than is allowed; a client that goes away in the middle has not said all."""
    body = b""
    with contextlib.suppress(ClientDisconnect):
        async for chunk in request.stream():
            body += chunk
            if len(body) > feedback.MAX_BODY:
                break
    return body
