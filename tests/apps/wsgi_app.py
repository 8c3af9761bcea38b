"""The test app on plain WSGI: routes by hand, no framework."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_middleware import feedback
from mlflow_middleware.request_trace import current
from mlflow_middleware.wsgi import TraceMiddleware, exchange_of
from tests.apps import behaviour

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    parts = environ["PATH_INFO"].strip("/").split("/")
    status, template, handler = _find(parts)
    if template and (trace := current()):
        trace.exchange.route = template
    if template == "/echo":
        start_response("200 OK", [("Content-Type", environ.get("CONTENT_TYPE", ""))])
        return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))]
    if template == "/feedback":
        answered = feedback.answer(
            exchange_of(environ), environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        )
        start_response(f"{answered.status} {HTTPStatus(answered.status).phrase}", list(answered.headers.items()))
        return [answered.body]
    body = handler()
    kinds = {"/events": "text/event-stream", "/ticks": "text/event-stream", "/unread": "application/json"}
    kind = kinds.get(template or "", "text/plain; charset=utf-8")
    start_response(f"{status} {HTTPStatus(status).phrase}", [("Content-Type", kind)])
    return body if template in ("/stream", "/events", "/ticks") else [body.encode()]


def _find(parts: list[str]) -> tuple[int, str | None, Callable[[], Any]]:
    if parts[0] == "status":
        return int(parts[1]), "/status/{code}", str
    if len(parts) == 3 and parts[1] == "chats":
        return 200, f"/{parts[0]}/chats/{{chat_id}}", lambda: _chat(*parts)
    handlers: dict[str, Callable[[], Any]] = {
        "stream": behaviour.chunks,
        "events": behaviour.events,
        "ticks": behaviour.ticks,
        "echo": str,
        "feedback": str,
        "unread": lambda: "{}",
        "fail": behaviour.fail,
        "annotate": lambda: json.dumps(behaviour.say()),
        "outbound": lambda: json.dumps(behaviour.outbound()),
        "log": behaviour.log_line,
        "health": _health,
    }
    if parts[0] in handlers:
        return 200, f"/{parts[0]}", handlers[parts[0]]
    return 404, None, lambda: "not found"


def _chat(kind: str, _: str, chat_id: str) -> str:
    seen = behaviour.answer(chat_id) if kind == "sync" else asyncio.run(behaviour.answer_async(chat_id))
    return json.dumps(seen)


def _health() -> str:
    with mlflow.start_span("health"):
        return "{}"


app = TraceMiddleware(bare, **behaviour.OPTIONS)
