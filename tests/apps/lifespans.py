"""Starts an app, sends it a request and shuts it down, repeatedly in one process, as a suite with test clients does.

python -m tests.apps.lifespans COUNT
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware
from tests import messages


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send(messages.start(200))
        await send(messages.body(b"ok"))
        return
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": f"{message['type']}.complete"})


app = TraceMiddleware(bare)


async def once() -> float:
    """Serve one request in a lifespan of its own; return the duration of its shutdown."""
    to_app: asyncio.Queue[Any] = asyncio.Queue()
    from_app: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan"}, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    await from_app.get()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope, asyncio.Queue().get, asyncio.Queue().put)
    began = time.monotonic()
    await to_app.put({"type": "lifespan.shutdown"})
    await lifespan
    return time.monotonic() - began


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    for _ in range(int(sys.argv[1])):
        print(f"took {asyncio.run(once()):.3f} s")
    print(delivery.stats().waiting, "waiting")
