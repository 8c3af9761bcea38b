"""A FastAPI app with everything that can be between a request and its handler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.wsgi import WSGIMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from mlflow_middleware import wsgi
from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.request_trace import annotate, current
from tests.apps import afterwards

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Below(BaseHTTPMiddleware):
    """Inside the tracing middleware."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        annotate(tags={"below": "before"})
        response = await call_next(request)
        annotate(tags={"below-after": str(response.status_code)})
        return response


class Above(BaseHTTPMiddleware):
    """Outside the tracing middleware."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Seen-Above"] = response.headers.get("X-MLflow-Trace-ID", "nothing")
        return response


shops = APIRouter(prefix="/shops")


@shops.get("/{shop_id}")
def shop(shop_id: str) -> dict[str, str]:
    return {"shop": shop_id}


version = APIRouter(prefix="/v1")
version.include_router(shops)

tenant = FastAPI()


@tenant.get("/items/{item_id}")
def item(item_id: str) -> dict[str, str]:
    return {"item": item_id}


@tenant.get("/")
def tenant_home() -> dict[str, str]:
    return {}


traced_too = FastAPI()
traced_too.add_middleware(TraceMiddleware)


@traced_too.get("/here/{thing}")
def here(thing: str) -> dict[str, str | None]:
    trace = current()
    return {"trace_id": trace.trace_id if trace else None}


background = APIRouter()


@background.get("/after")
def after(tasks: BackgroundTasks) -> Response:
    tasks.add_task(begin_async)
    tasks.add_task(afterwards.end)
    return PlainTextResponse("answer")


async def begin_async() -> None:
    afterwards.begin()


@background.get("/open/{request_id}")
def open_gate(request_id: str) -> None:
    afterwards.open_gate(request_id)


def of_wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    trace = current()
    return [str(trace and trace.trace_id).encode()]


def create() -> FastAPI:
    """Return the app, without any middleware yet."""
    app = FastAPI()
    app.include_router(version)
    app.include_router(background)
    app.mount("/tenants/{tenant}", tenant)
    app.mount("/numbered/{number:int}", tenant)
    app.mount("/folders/{folder:path}/end", tenant)
    app.mount("/inner", traced_too)
    app.mount("/wsgi", WSGIMiddleware(wsgi.TraceMiddleware(of_wsgi)))
    app.mount("/static", StaticFiles(directory=Path(__file__).parent))

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418)

    @app.get("/wrong-value")
    def wrong_value() -> None:
        raise ValueError("not that")

    @app.exception_handler(ValueError)
    def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"wrong": str(error)}, 400)

    @app.get("/fail")
    def fail() -> None:
        raise RuntimeError("the model is unavailable")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {}

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            if text.startswith("I am "):
                annotate(user_id=text.removeprefix("I am "), tags={"plan": "pro"})
            with mlflow.start_span("turn"):
                await websocket.send_text(f"you said {text}")

    @app.websocket("/health")
    async def pulse(websocket: WebSocket) -> None:
        await websocket.accept()
        with mlflow.start_span("pulse"):
            await websocket.send_text(await websocket.receive_text())

    return app


app = create()
app.add_middleware(Below)
app.add_middleware(TraceMiddleware)
app.add_middleware(Above)
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])

inside_cors = create()
inside_cors.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"], expose_headers=["X-Pages"])
wrapped = TraceMiddleware(inside_cors)
