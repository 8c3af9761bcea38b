"""A deadline for a whole call, whatever it waits for.

An HTTP client's timeout applies to each read: a server that sends one byte per second can block it forever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

MAX_ABANDONED = 8
"""Maximum number of calls that may still run, each in its own thread, after their deadline has passed."""

T = TypeVar("T")

_abandoned: list[threading.Thread] = []


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run a call in another thread and return its result within a deadline.

    Args:
        seconds: The deadline.
        call: The function to call. It is not interrupted after the deadline, but its result is discarded.

    Raises:
        TimeoutError: The deadline has passed, or too many earlier calls are still running after theirs.
        Exception: Any exception of the call.
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
