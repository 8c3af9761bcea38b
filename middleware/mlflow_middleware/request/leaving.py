"""A client that leaves before its answer is there."""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether the current task was to be cancelled, and what it ran has come to an answer all the same.

    A view in a thread can not be interrupted. Python 3.10 does not tell.
    """
    task = asyncio.current_task()
    return bool(task and getattr(task, "cancelling", int)())
