"""Functions that run in the context of the request that created them, wherever they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function; see `request_trace.carry`."""
    context = copy_context()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)

    async def steps(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await _Steps(context.copy(), function(*args, **kwargs))

    def items(*args: P.args, **kwargs: P.kwargs) -> Any:
        return _items(context.copy(), function(*args, **kwargs))

    def awaited_items(*args: P.args, **kwargs: P.kwargs) -> Any:
        return _awaited_items(context.copy(), function(*args, **kwargs))

    chosen: Any = call
    if is_async(function):
        chosen = steps
    elif _is(inspect.isgeneratorfunction, function):
        chosen = items
    elif _is(inspect.isasyncgenfunction, function):
        chosen = awaited_items
    wrapper: Callable[P, R] = functools.update_wrapper(chosen, function)
    return wrapper


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a callable is a coroutine function, or an object whose ``__call__`` is one."""
    return _is(inspect.iscoroutinefunction, function)


def is_generator(function: Callable[..., Any]) -> bool:
    """Return whether a callable is a sync or async generator function, or an object whose ``__call__`` is one."""
    return _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function)


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    own = None if isinstance(function, type) else getattr(function, "__call__", None)  # noqa: B004
    return kind(function) or kind(own)


def _items(context: Context, inner: Any) -> Generator[Any, Any, Any]:
    """Run a generator or a coroutine step by step in another context, but in the caller's thread or task."""
    step: Callable[[], Any] = functools.partial(inner.send, None)
    while True:
        try:
            item = context.run(step)
        except StopIteration as done:
            return done.value
        try:
            step = functools.partial(inner.send, (yield item))
        except BaseException as error:
            step = functools.partial(inner.throw, error)


async def _awaited_items(context: Context, inner: Any) -> AsyncGenerator[Any, Any]:
    step = inner.asend(None)
    while True:
        try:
            item = await _Steps(context, step)
        except StopAsyncIteration:
            return
        try:
            step = inner.asend((yield item))
        except BaseException as error:
            step = inner.athrow(error)


class _Steps:
    """Awaitable that runs a coroutine in another context, but in the awaiting task."""

    def __init__(self, context: Context, coroutine: Any) -> None:
        self._context = context
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return _items(self._context, self._coroutine)
