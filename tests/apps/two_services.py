"""A front service and a back service, each in a process of its own; ``APP_BACK`` selects the back's behaviour."""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import mlflow
import requests
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from mlflow.tracing import set_tracing_context_from_http_request_headers

from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request_trace import annotate, outbound_headers
from tests import messages

BACK = os.environ.get("APP_BACK", "")
"""How the back is traced: ``middleware``; or ``handler``, by MLflow's own function in it, with or without ours."""


async def front(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] != "http" or scope["path"] == "/health":
        await _other(scope, receive, send)
        return
    wants: Any = json.loads((await receive())["body"])  # type: ignore[typeddict-item]
    call = asyncio.create_task(asyncio.to_thread(_call, wants["url"], outbound_headers()))
    if wants["first"] != "front":
        await call
    else:
        await asyncio.sleep(0.2)  # the call has begun by now; in either case, the front's answer does not wait
    if wants["first"] == "back":
        await asyncio.sleep(1.5)  # by now the back has sent its first batch
    await _send(send, 200, b'{"answer": "of the front"}')
    await call


def _call(url: str, headers: dict[str, str]) -> None:
    sent = {**headers, "X-Request-ID": f"back-{headers['traceparent']}", "X-Session-ID": "back", "X-User-ID": "back"}
    requests.post(url, json={"question": "to the back"}, headers=sent, timeout=60)


async def back(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] != "http" or scope["path"] == "/health":
        await _other(scope, receive, send)
        return
    await receive()
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    if "handler" in BACK:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        with set_tracing_context_from_http_request_headers(headers), mlflow.start_span("handler") as span:
            span.set_inputs({"question": "to the handler"})
            with mlflow.start_span("inner"):
                pass
    else:
        annotate(tags={"only": "the back's"})
        with mlflow.start_span("handler"):
            mlflow.update_current_trace(state="ERROR", tags={"said": "by the back"})
            time.sleep(0.01)
    await _send(send, 500, b'{"answer": "of the back"}')


async def _other(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "http":
        await _send(send, 200, b"{}")
        return
    while (message := await receive())["type"].startswith("lifespan"):
        await send(messages.other(f"{message['type']}.complete"))
        if message["type"] == "lifespan.shutdown":
            return


async def _send(send: ASGISendCallable, status: int, body: bytes) -> None:
    await send(messages.start(status, (b"content-type", b"application/json")))
    await send(messages.other("http.response.body", body=body))


traced_front = TraceMiddleware(front)
traced_back: Any = back if BACK == "handler" else TraceMiddleware(back, trust_incoming_trace=BACK == "middleware")
