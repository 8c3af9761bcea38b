"""A deadline for a whole call, whatever it waits for.

The time-out of an HTTP client is that of each read: a server that answers one byte a second keeps it for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

MAX_ABANDONED = 8
"""Calls that may go on, each in a thread of its own, after nobody waits for them any more."""

T = TypeVar("T")

_abandoned: list[threading.Thread] = []


def within(seconds: float, call: Callable[[], T]) -> T:
    """Do something in another thread, and wait for it only so long.

    Args:
        seconds: How long.
        call: What is to be done. If it takes longer, it may go on, but for nothing.

    Raises:
        TimeoutError: It takes longer; or too many before it have, and still go on.
        Exception: What it raises.
    """
    _abandoned[:] = [thread for thread in _abandoned if thread.is_alive()]
    if len(_abandoned) >= MAX_ABANDONED:
        raise TimeoutError(f"{len(_abandoned)} earlier requests are still waiting for an answer")
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="mlflow-middleware-request", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is exiting
        return call()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        _abandoned.append(thread)
        raise TimeoutError(f"timed out: no complete answer within {seconds:.0f} s")
    return results[0]
