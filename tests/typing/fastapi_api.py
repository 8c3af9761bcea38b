"""The types of the FastAPI and Starlette adapter, as type checkers see them; never executed."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from typing_extensions import assert_type

from mlflow_middleware import metrics
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.fastapi import (
    TraceMiddleware,
    annotate,
    carry,
    continue_trace,
    drop_trace,
    feedback_route,
    feedback_router,
    job_trace,
    keep_trace,
    metrics_route,
    metrics_router,
    outbound_headers,
)
from mlflow_middleware.identity import Identity
from mlflow_middleware.settings import Settings


def identify(exchange: Exchange) -> Identity:
    """Return the user."""
    return Identity(user_id=exchange.headers.get("x-user"))


def fastapi_app() -> None:
    app = FastAPI(middleware=[Middleware(TraceMiddleware, exclude=["/health"])])
    app.add_middleware(TraceMiddleware)
    app.add_middleware(TraceMiddleware, session_id_header="X-Chat-ID", identify=identify)
    app.add_middleware(TraceMiddleware, settings=Settings.load())
    app.include_router(feedback_router())
    app.include_router(metrics_router("/internal/metrics"))
    assert_type(feedback_router("/api"), APIRouter)
    assert_type(metrics_router(), APIRouter)
    TraceMiddleware(app)
    TraceMiddleware(app=app)

    @app.post("/chats/{chat_id}")
    @job_trace
    async def chat(chat_id: str) -> dict[str, str]:
        annotate(session_id=chat_id)
        return {"answer": "yes"}


def starlette_app() -> None:
    app = Starlette(
        routes=[feedback_route(), metrics_route(), Mount("/metrics", app=metrics.asgi_app)],
        middleware=[Middleware(TraceMiddleware)],
    )
    app.add_middleware(TraceMiddleware, sample_ratio=0.5)
    assert_type(feedback_route("/api"), Route)
    assert_type(metrics_route(), Route)
    app.mount("/inside", TraceMiddleware(app))


def functions_for_views() -> None:
    """The functions that each adapter offers are those of the core."""
    assert_type(drop_trace(), None)
    assert_type(keep_trace(), None)
    assert_type(outbound_headers(), dict[str, str])
    with continue_trace("token") as nothing:
        assert_type(nothing, None)
    assert_type(carry(identify)(Exchange("GET", "/", {})), Identity)
