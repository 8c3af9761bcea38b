"""A plain ASGI app that covers the protocol's corner cases: traced, and untraced below ``/bare``.

Below ``/transcript`` it is its own server, for features that no server here supports: it answers with the messages
that a server would get from the traced app and from the bare one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import mlflow
from asgiref.typing import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPResponseBodyEvent,
    HTTPResponseTrailersEvent,
    HTTPScope,
    Scope,
)

from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.request_trace import annotate
from tests.apps import afterwards

PIECE = b"x" * (1 << 20)
HINT: Any = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
TRAILER: HTTPResponseTrailersEvent = {
    "type": "http.response.trailers",
    "headers": [(b"x-checksum", b"1")],
    "more_trailers": False,
}


def start(status: int, *headers: tuple[bytes, bytes], **more: object) -> Any:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(content: bytes, more: bool = False) -> HTTPResponseBodyEvent:
    return {"type": "http.response.body", "body": content, "more_body": more}


LENGTH = (b"content-length", b"5")
EVENTS = start(200, (b"content-type", b"text/event-stream"))
TEXT = start(200, (b"content-type", b"text/plain"))

SAID: dict[str, list[Any]] = {
    "/plain": [start(200, (b"content-type", b"text/plain"), LENGTH), body(b"whole")],
    "/chunks": [TEXT, body(b"one,", True), body(b"", True), body(b"two", True), body(b"")],
    "/created": [start(201, (b"location", b"/plain"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")), body(b"")],
    "/no-content": [start(204), body(b"")],
    "/not-modified": [start(304, (b"etag", b'"5"')), body(b"")],
    "/range": [start(206, (b"content-range", b"bytes 0-4/10"), LENGTH), body(b"range")],
    "/hinted": [HINT, TEXT, body(b"hinted")],
    "/trailers": [start(200, (b"content-type", b"text/plain"), trailers=True), body(b"body"), TRAILER],
    "/many-trailers": [start(200, trailers=True), body(b"body"), {**TRAILER, "more_trailers": True}, TRAILER],
    "/pathsend": [TEXT, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
    "/zerocopysend": [TEXT, {"type": "http.response.zerocopysend", "file": 7, "more_body": True}, body(b"end")],
    "/unknown": [{"type": "x.y", "z": [1]}, TEXT, {"type": "http.response.push", "path": "/a"}, body(b"known")],
    "/without-headers": [{"type": "http.response.start", "status": 200}, {"type": "http.response.body"}],
}
"""The app's messages for these paths, verbatim, including types that asgiref does not know."""


async def say(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    for message in SAID[scope["path"]]:
        await send(message)


async def chunks() -> AsyncIterator[bytes]:
    """An async generator with a span and an annotation on its first chunk, on its last, and when it is closed."""
    for number in range(3):
        with mlflow.start_span(f"chunk {number}"):
            annotate(tags={f"chunk-{number}": "seen"})
        yield f"{number}\n".encode()


async def generated(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await send(TEXT)
    async for chunk in chunks():
        await send(body(chunk, True))
    await send(body(b""))


async def tokens(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """A stream of this many tokens over this many milliseconds; it ends early if the server reports a disconnect."""
    count, milliseconds = map(int, scope["path"].split("/")[2:])
    gone = asyncio.create_task(until_gone(receive))
    await send(EVENTS)
    for number in range(count):
        if number in (0, count - 1):
            with mlflow.start_span(f"token {number}"):
                annotate(tags={"token": number})
        await send(body(f"data: token {number}\n\n".encode(), True))
        await asyncio.wait([gone], timeout=milliseconds / count / 1000)
        if gone.done():
            return
    await send(body(b""))
    gone.cancel()


async def until_gone(receive: ASGIReceiveCallable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def broken(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await send(TEXT)
    await send(body(b"begun", True))
    raise RuntimeError("the model went away")


async def cancelled(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await send(TEXT)
    await send(body(b"begun", True))
    raise asyncio.CancelledError


async def after(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await send(TEXT)
    await send(body(b"answer"))
    afterwards.begin()
    await asyncio.to_thread(afterwards.end)
    if scope["path"] == "/after-and-fail":
        raise RuntimeError("the index is unavailable")


async def answer_late(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer whole, a little after the gate was opened; the body of a POST is read first."""
    if scope["method"] == "POST":
        await receive()
    await asyncio.to_thread(afterwards.end)
    await asyncio.sleep(0.3)  # the time that a model takes
    await send(start(200, (b"content-type", b"text/plain"), (b"content-length", b"6")))
    await send(body(b"answer"))


async def upload(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    size, more = 0, True
    while more:
        message: Any = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send(TEXT)
    await send(body(str(size).encode()))


async def download(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    count = int(scope["path"].split("/")[2])
    await send(start(200, (b"content-length", str(count * len(PIECE)).encode())))
    for _ in range(count):
        await send(body(PIECE, True))
    await send(body(b""))


async def open_gate(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    afterwards.open_gate(scope["path"].split("/")[2])
    await send(TEXT)
    await send(body(b"open"))


async def health(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    await send(TEXT)
    await send(body(b"fine"))


HANDLERS: dict[str, Callable[[HTTPScope, ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]] = {
    "generated": generated,
    "tokens": tokens,
    "broken": broken,
    "cancelled": cancelled,
    "after": after,
    "after-and-fail": after,
    "late": answer_late,
    "upload": upload,
    "download": download,
    "open": open_gate,
    "health": health,
}


async def bare(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    assert scope["type"] == "http"
    await HANDLERS.get(scope["path"].split("/")[1], say)(scope, receive, send)


traced = TraceMiddleware(TraceMiddleware(bare))


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "http" and scope["path"].startswith("/bare/"):
        await bare({**scope, "path": scope["path"].removeprefix("/bare")}, receive, send)
    elif scope["type"] == "http" and scope["path"].startswith("/transcript/"):
        await transcript({**scope, "path": scope["path"].removeprefix("/transcript")}, send)
    else:
        await traced(scope, receive, send)


async def transcript(scope: HTTPScope, send: ASGISendCallable) -> None:
    """Return both apps' messages, and which of the traced app's are the identical objects."""
    seen = {"bare": await heard(bare, {**scope}), "traced": await heard(traced, {**scope})}
    said = SAID.get(scope["path"], [])
    own = [any(message is mine for mine in said) for message in seen["traced"]]
    await send(start(200, (b"content-type", b"application/json")))
    await send(body(json.dumps({**seen, "own": own}, default=bytes.decode).encode()))


async def heard(app: ASGI3Application, scope: HTTPScope) -> list[Any]:
    """Return the messages that a server gets from an app; with ``?broken`` its client disconnects at the third one."""
    messages: list[Any] = []

    async def send(message: ASGISendEvent) -> None:
        if scope["query_string"] == b"broken" and len(messages) == 2:
            raise BrokenPipeError
        messages.append(message)

    async def receive() -> ASGIReceiveEvent:
        return {"type": "http.request", "body": b"", "more_body": False}

    try:
        await app(scope, receive, send)
    except (OSError, asyncio.CancelledError) as error:
        messages.append({"type": type(error).__name__})
    return messages
