"""An ASGI app with a child span of 10 KB input and 10 KB output in each request."""

from __future__ import annotations

import random
import string

import mlflow
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from mlflow_middleware.asgi import TraceMiddleware
from tests import messages

KILOBYTES = 10
_random = random.Random(0)
WORDS = ["".join(_random.choices(string.ascii_lowercase, k=_random.randint(2, 10))) for _ in range(20_000)]


def text() -> str:
    """Return text that is different each time and, like prose, compresses to half at best."""
    return " ".join(_random.choices(WORDS, k=KILOBYTES * 160))[: KILOBYTES * 1024]


async def bare(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] != "/health":
        with mlflow.start_span("model") as span:
            span.set_inputs(text())
            span.set_outputs(text())
    await send(messages.start(200, (b"content-type", b"text/plain")))
    await send(messages.body(b"fine"))


app = TraceMiddleware(bare)
