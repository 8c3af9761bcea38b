"""The route for Prometheus in FastAPI and Starlette apps.

::

    app.include_router(metrics_router())  # FastAPI: GET /metrics
    app.routes.append(metrics_route())  # Starlette

What it shows is in ``mlflow_middleware.metrics``. Its own requests are no traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlflow_middleware import metrics

if TYPE_CHECKING:
    from fastapi import APIRouter


async def _endpoint(request: Request) -> Response:
    body, kind = await run_in_threadpool(metrics.scrape, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": kind})


def metrics_router(path: str = "/metrics") -> APIRouter:
    """Make a router with ``GET /metrics``, which is not in the OpenAPI schema.

    Args:
        path: Where.
    """
    from fastapi import APIRouter  # Starlette's users need not have it

    router = APIRouter()
    router.add_route(path, _endpoint, methods=["GET"], name="mlflow_middleware_metrics", include_in_schema=False)
    return router


def metrics_route(path: str = "/metrics") -> Route:
    """Make Starlette's route for ``GET /metrics``.

    Args:
        path: Where.
    """
    return Route(path, _endpoint, methods=["GET"], name="mlflow_middleware_metrics", include_in_schema=False)
