"""Functions that run in the context of the request that they were taken from, wherever they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """See `request_trace.carry`."""
    context = copy_context()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)

    async def steps(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await _Steps(context.copy(), function(*args, **kwargs))

    chosen: Any = steps if is_async(function) else call
    wrapper: Callable[P, R] = functools.update_wrapper(chosen, function)
    return wrapper


def is_async(function: Callable[..., Any]) -> bool:
    """Whether what is called is a coroutine function, or an object that is called like one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class _Steps:
    """Awaits a coroutine in another context, in the task and under the event loop of whoever awaits this."""

    def __init__(self, context: Context, coroutine: Any) -> None:
        self._context = context
        self._coroutine: Coroutine[Any, Any, Any] = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = functools.partial(self._coroutine.send, None)
        while True:
            try:
                waits_for = self._context.run(step)
            except StopIteration as done:
                return done.value
            try:
                step = functools.partial(self._coroutine.send, (yield waits_for))
            except BaseException as error:
                step = functools.partial(self._coroutine.throw, error)
