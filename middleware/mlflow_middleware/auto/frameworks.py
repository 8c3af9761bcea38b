"""The patches of frameworks with an adapter, at the points where they prepare to serve.

The patched code is the adapter's. It is loaded with the app's first object, not during the framework's import.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

from mlflow_middleware.auto import report


def patch(module: Any) -> None:
    """Patch a framework's module, chosen by its name."""
    PATCHES[module.__name__](module)


@functools.cache
def _adapter(framework: str) -> Any:
    """Return the adapter's module; None, reported once, if it cannot be imported: the app runs without it."""
    try:
        return importlib.import_module(f"mlflow_middleware.{framework}.auto")
    except Exception as error:
        report(f"the app is not traced: {type(error).__name__}: {error}")
        return None


def _starlette(module: Any) -> None:
    _trace_stacks(module.Starlette)


def _fastapi(module: Any) -> None:
    _trace_stacks(module.FastAPI)


def _trace_stacks(kind: Any) -> None:
    """Patch the building of the middleware stack, which an app does once, at its first call."""
    if build := vars(kind).get("build_middleware_stack"):

        @functools.wraps(build)
        def build_middleware_stack(self: Any) -> Any:
            stack, adapter = build(self), _adapter("fastapi")
            return adapter.traced(stack) if adapter else stack

        kind.build_middleware_stack = build_middleware_stack
    kind.__init__ = _then(kind.__init__, _starlette_made)


def _starlette_made(app: Any) -> None:
    if adapter := _adapter("fastapi"):
        adapter.made(app)


def _flask(module: Any) -> None:
    """Patch the app's call rather than its creation: before its first request an app may still add its own line."""
    original = module.Flask.__call__

    @functools.wraps(original)
    def call(self: Any, environ: Any, start_response: Any) -> Any:
        if adapter := _adapter("flask"):
            adapter.called(self)
        return original(self, environ, start_response)

    module.Flask.__call__ = call
    module.Flask.__init__ = _then(module.Flask.__init__, lambda app: _adapter("flask"))


def served(app: Any) -> None:
    """Trace a Flask app when its server starts: only the main thread can handle the signal that ends the process."""
    flask = sys.modules.get("flask.app")
    if flask and isinstance(app, flask.Flask) and (adapter := _adapter("flask")):
        adapter.called(app)


def _then(build: Callable[..., None], after: Callable[[Any], object]) -> Callable[..., None]:
    @functools.wraps(build)
    def building(self: Any, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        after(self)

    return building


def _django(module: Any) -> None:
    """Patch the loading of the middleware, which every kind of handler does when it is created."""
    original = module.BaseHandler.load_middleware

    @functools.wraps(original)
    def load_middleware(self: Any, *args: Any, **options: Any) -> None:
        if adapter := _adapter("django"):
            adapter.add()
        original(self, *args, **options)

    module.BaseHandler.load_middleware = load_middleware


def _django_asgi(module: Any) -> None:
    """Add lifespan support to Django's handler, so that a server can announce its shutdown."""
    original = module.ASGIHandler.__call__

    @functools.wraps(original)
    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" and (adapter := _adapter("django")):
            await adapter.serve_lifespan(receive, send)
        else:
            await original(self, scope, receive, send)

    module.ASGIHandler.__call__ = call


PATCHES: dict[str, Callable[[Any], None]] = {
    "starlette.applications": _starlette,
    "fastapi.applications": _fastapi,
    "flask.app": _flask,
    "django.core.handlers.base": _django,
    "django.core.handlers.asgi": _django_asgi,
}
"""A framework's module -> its patch."""
