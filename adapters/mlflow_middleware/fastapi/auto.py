"""Support for Starlette and FastAPI in ``mlflow-middleware run``."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from mlflow_middleware import asgi
from mlflow_middleware.auto import own
from mlflow_middleware.fastapi import TraceMiddleware

if TYPE_CHECKING:
    from starlette.applications import Starlette

_apps: weakref.WeakSet[Starlette] = weakref.WeakSet()


def made(app: Starlette) -> None:
    """Remember an app, since its code may add the middleware itself."""
    _apps.add(app)


def traced(stack: Any) -> Any:
    """Wrap an app's whole middleware stack, so that responses to unhandled exceptions have our headers, too."""
    if isinstance(stack, asgi.TraceMiddleware) or own.found():
        return stack
    with own.adding():
        return TraceMiddleware(stack)


def _any_has_it() -> bool:
    return any(_is_ours(each.cls) for app in list(_apps) for each in app.user_middleware)


def _is_ours(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, asgi.TraceMiddleware)


own.in_frameworks.append(_any_has_it)
