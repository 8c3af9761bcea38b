"""Requests to a traced app in this process, each of which does one thing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import mlflow
from asgiref.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable, ASGISendEvent, HTTPScope

from mlflow_middleware.asgi import TraceMiddleware
from tests import messages


def active_span() -> Any:
    """Return MLflow's current span, which exists here."""
    found = mlflow.get_current_active_span()
    assert found is not None
    return found


def traced(
    experiment: str,
    do: Callable[[str], object],
    afterwards: Callable[[str], object] | None = None,
    *,
    status: int = 200,
    **options: Any,
) -> TraceMiddleware:
    """An app that does what a request's path names, behind the middleware.

    Args:
        experiment: The experiment of its traces.
        do: Called before the answer.
        afterwards: Called after the answer, while the request goes on.
        status: The status of the answer.
        options: The middleware's options.
    """
    os.environ["MLFLOW_EXPERIMENT_NAME"] = experiment

    async def app(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        way = scope["path"][1:]
        await receive()
        do(way)
        await send(messages.start(status, (b"content-type", b"text/plain")))
        await send(messages.body(b"done"))
        if afterwards:
            afterwards(way)

    return TraceMiddleware(app, **options)


async def asked(middleware: TraceMiddleware, way: str, request_id: str = "") -> dict[str, str]:
    """Send one request; return the headers of the answer."""
    given: dict[str, str] = {}

    async def receive() -> ASGIReceiveEvent:
        return messages.request()

    async def send(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            given.update({name.decode(): value.decode() for name, value in message["headers"]})

    name = (request_id or way.replace(" ", "-").replace(",", "")).encode()
    await middleware(messages.http(f"/{way}", (b"x-request-id", name)), receive, send)
    return given
