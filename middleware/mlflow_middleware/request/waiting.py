"""Waits for delivery that do not block the event loop, under asyncio or trio."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable


async def in_thread(work: Callable[[], None]) -> None:
    """Run blocking work in its own thread; the threads of the event loop are few and belong to the app.

    Args:
        work: The work; it must not raise.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        await (trio.to_thread.run_sync(work) if trio else _here(work))
        return
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        work()
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_end, done)

    try:
        threading.Thread(target=run, name="mlflow-middleware-waiting", daemon=True).start()
    except RuntimeError:  # the interpreter is exiting
        work()
        return
    await done


def _end(done: asyncio.Future[None]) -> None:
    if not done.done():  # it may have been cancelled
        done.set_result(None)


async def _here(work: Callable[[], None]) -> None:
    work()
