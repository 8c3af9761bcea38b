"""The test app on plain ASGI: routes by hand, no framework."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import mlflow
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from mlflow_middleware.asgi import TraceMiddleware
from tests import messages
from tests.apps import behaviour


class Routed(TraceMiddleware):
    """Set the template, as an app without a framework does."""

    def route(self, scope: Mapping[str, Any]) -> str | None:
        template: str | None = scope.get("template")
        return template


async def bare(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    assert scope["type"] == "http"
    parts = scope["path"].strip("/").split("/")
    handler, template = _find(parts)
    if template:
        own: Any = scope
        own["template"] = template
    if handler is None:
        await _send(send, 404, b"not found")
    elif template == "/stream":
        await _stream(send, behaviour.chunks(), b"text/plain")
    elif template == "/events":
        await _stream(send, behaviour.events(), b"text/event-stream")
    elif template == "/echo":
        await _echo(scope, receive, send)
    elif template == "/unread":
        headers = iter([(b"content-type", b"application/json"), (b"x-own", b"kept")])  # the specification allows it
        await send({**messages.start(), "headers": headers})
        await send(messages.body(b"{}"))
    else:
        status, body = await handler(parts)
        await _send(send, status, body)


async def _stream(send: ASGISendCallable, chunks: Iterator[bytes], kind: bytes) -> None:
    await send(messages.start(200, (b"content-type", kind)))
    for chunk in chunks:
        await send(messages.body(chunk, more=True))
    await send(messages.other("http.response.body"))


async def _echo(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    body, more = b"", True
    while more:
        message: Any = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await _send(send, 200, body, dict(scope["headers"]).get(b"content-type", b""))


async def _lifespan(receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    while True:
        message = await receive()
        await send(messages.other(f"{message['type']}.complete"))
        if message["type"] == "lifespan.shutdown":
            return


async def _send(send: ASGISendCallable, status: int, body: bytes, kind: bytes = b"text/plain") -> None:
    await send(messages.start(status, (b"content-type", kind)))
    await send(messages.other("http.response.body", body=body))


Handler = Callable[[list[str]], Awaitable[tuple[int, bytes]]]


async def _chat_sync(parts: list[str]) -> tuple[int, bytes]:
    return 200, json.dumps(behaviour.answer(parts[2])).encode()


async def _chat_async(parts: list[str]) -> tuple[int, bytes]:
    return 200, json.dumps(await behaviour.answer_async(parts[2])).encode()


async def _fail(parts: list[str]) -> tuple[int, bytes]:
    behaviour.fail()
    return 200, b""


async def _annotate(parts: list[str]) -> tuple[int, bytes]:
    return 200, json.dumps(behaviour.say()).encode()


async def _outbound(parts: list[str]) -> tuple[int, bytes]:
    return 200, json.dumps(behaviour.outbound()).encode()


async def _log(parts: list[str]) -> tuple[int, bytes]:
    return 200, behaviour.log_line().encode()


async def _status(parts: list[str]) -> tuple[int, bytes]:
    return int(parts[1]), b""


async def _health(parts: list[str]) -> tuple[int, bytes]:
    with mlflow.start_span("health"):
        return 200, b"{}"


def _find(parts: list[str]) -> tuple[Handler | None, str | None]:
    fixed: dict[str, Any] = {
        "fail": _fail,
        "annotate": _annotate,
        "outbound": _outbound,
        "log": _log,
        "health": _health,
        "stream": _log,
        "events": _log,
        "echo": _log,
        "unread": _log,
    }
    if len(parts) == 1 and parts[0] in fixed:
        return fixed[parts[0]], f"/{parts[0]}"
    if parts[0] == "status":
        return _status, "/status/{code}"
    if len(parts) == 3 and parts[1] == "chats":
        return (_chat_sync if parts[0] == "sync" else _chat_async), f"/{parts[0]}/chats/{{chat_id}}"
    return None, None


app = Routed(bare, **behaviour.OPTIONS)
