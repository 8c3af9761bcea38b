"""The route for Prometheus in FastAPI and Starlette apps.

::

    app.include_router(metrics_router())  # FastAPI: GET /metrics
    app.routes.append(metrics_route())  # Starlette

``mlflow_middleware.metrics`` describes the metrics. Requests to the route itself are not traced.
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
    """Create a router with ``GET /metrics``, which is not part of the OpenAPI schema.

    Args:
        path: The path of the route.
    """
    from fastapi import APIRouter  # optional for users of Starlette

    router = APIRouter()
    router.add_route(path, _endpoint, methods=["GET"], name="mlflow_middleware_metrics", include_in_schema=False)
    return router


def metrics_route(path: str = "/metrics") -> Route:
    """Create a Starlette route for ``GET /metrics``.

    Args:
        path: The path of the route.
    """
    return Route(path, _endpoint, methods=["GET"], name="mlflow_middleware_metrics", include_in_schema=False)
