"""An ASGI app that also traces by itself: at import, in a thread, in its handlers."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import mlflow
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from mlflow_middleware.asgi import TraceMiddleware
from tests import messages
from tests.apps.known import identity

if chosen := os.environ.get("APP_EXPERIMENT"):
    mlflow.set_experiment(chosen)


@mlflow.trace(name="before-the-middleware")
def warm_up() -> None:
    """Traced at import, when MLflow's own delivery is still in place."""


@mlflow.trace(name="after-the-middleware")
def load_the_index() -> str:
    """Traced at import, when the middleware is set up."""
    with mlflow.start_span("read"):
        return "loaded"


def in_the_background() -> None:
    """Trace in a thread of the app's own."""
    with mlflow.start_span("nightly") as span:
        span.set_inputs({"documents": 3})
        mlflow.update_current_trace(tags={"job": "reindex"}, metadata={"kb": "2026-11"})


def update() -> dict[str, Any]:
    """Annotate the request through MLflow's own functions."""
    mlflow.update_current_trace(tags={"plan": "pro"}, **identity(session_id="from-mlflow", user="mlflow-user"))
    return {}


def wait_until_stored() -> dict[str, Any]:
    """Open a trace in another experiment, and wait until it is stored."""
    trace_ids: list[str] = []

    def work() -> None:
        with mlflow.start_span("elsewhere") as span:
            trace_ids.append(span.trace_id)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    mlflow.flush_trace_async_logging()
    return {"trace_id": trace_ids[0]}


def start_background() -> dict[str, Any]:
    """Start the thread."""
    threading.Thread(target=in_the_background).start()
    return {}


HANDLERS = {"/update": update, "/wait-until-stored": wait_until_stored, "/background": start_background}


async def bare(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    handler = HANDLERS.get(scope["path"], dict)
    body = json.dumps(handler()).encode()
    await send(messages.start())
    await send(messages.body(body))


warm_up()
app = TraceMiddleware(bare)
load_the_index()
