"""The check whether the app has our middleware itself: then only its own line, with its own options, applies.

This module has only light imports, since it is loaded before the modules that it observes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mlflow_middleware.auto import report

in_frameworks: list[Callable[[], bool]] = []
"""Functions that return whether an app of one framework has the middleware, built or not."""

_built: list[str] = []
_is_adding: ContextVar[bool] = ContextVar("mlflow_middleware.auto.adding", default=False)


def patch(module: Any) -> None:
    """Record when a middleware of `mlflow_middleware.asgi` or `mlflow_middleware.wsgi` is built."""
    build = module.TraceMiddleware.__init__

    @functools.wraps(build)
    def watched(self: Any, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        if not _is_adding.get():
            _built.append(type(self).__qualname__)

    module.TraceMiddleware.__init__ = watched


@contextmanager
def adding() -> Iterator[None]:
    """Mark middleware that is built inside as ours, not the app's own."""
    token = _is_adding.set(True)
    try:
        yield
    finally:
        _is_adding.reset(token)


def found() -> bool:
    """Return whether the app has our middleware itself; report it once."""
    is_found = bool(_built) or any(has_it() for has_it in in_frameworks)
    if is_found:
        left_alone()
    return is_found


@functools.cache
def left_alone() -> None:
    """Report, once, that nothing is added."""
    report("the app has the middleware already; nothing is added, its own options apply")
