"""Frameworks that have an adapter: where each of them gets ready to serve.

What is put there is the adapter's; it is loaded with the app's first object, not while its framework is being imported.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from mlflow_middleware.auto import say


def patch(module: Any) -> None:
    """Change a framework's module, by its name."""
    PATCHES[module.__name__](module)


@functools.cache
def _adapter(framework: str) -> Any:
    """The adapter's part; None, which is reported once, where it cannot be imported: the app goes on without it."""
    try:
        return importlib.import_module(f"mlflow_middleware.{framework}.auto")
    except Exception as error:
        say(f"the app is not traced: {type(error).__name__}: {error}")
        return None


def _starlette(module: Any) -> None:
    _trace_stacks(module.Starlette)


def _fastapi(module: Any) -> None:
    _trace_stacks(module.FastAPI)


def _trace_stacks(kind: Any) -> None:
    """An app builds its middleware, once, when it is first called."""
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
    """Until its first request an app may still get a line of its own."""
    original = module.Flask.__call__

    @functools.wraps(original)
    def call(self: Any, environ: Any, start_response: Any) -> Any:
        if adapter := _adapter("flask"):
            adapter.called(self)
        return original(self, environ, start_response)

    module.Flask.__call__ = call
    module.Flask.__init__ = _then(module.Flask.__init__, lambda app: _adapter("flask"))


def _then(build: Callable[..., None], after: Callable[[Any], object]) -> Callable[..., None]:
    @functools.wraps(build)
    def building(self: Any, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        after(self)

    return building


def _django(module: Any) -> None:
    """A handler, of whatever kind, loads its middleware when it is made."""
    original = module.BaseHandler.load_middleware

    @functools.wraps(original)
    def load_middleware(self: Any, *args: Any, **options: Any) -> None:
        if adapter := _adapter("django"):
            adapter.add()
        original(self, *args, **options)

    module.BaseHandler.load_middleware = load_middleware


def _django_asgi(module: Any) -> None:
    """Its own handler knows no lifespan, by which a server says that it ends."""
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
"""A framework's module -> what changes it."""
