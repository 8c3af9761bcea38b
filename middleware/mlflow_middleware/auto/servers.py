"""Servers: where each of them gets the app that it serves.

Each function changes one module of one server. What a server puts around the app, such as uvicorn's look at a proxy's
headers, stays outside of ours, as it does with a line in the app. Our own part is loaded with the app, not before: a
supervisor that only watches its workers does without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mlflow_middleware.auto import say


def patch(module: Any) -> None:
    """Change a server's module, by its name."""
    PATCHES[module.__name__](module)


def _wrapped(app: Any, kind: str = "") -> Any:
    try:
        from mlflow_middleware.auto.wrapping import wrapped
    except Exception as error:
        say(f"the app is not traced: {type(error).__name__}: {error}")
        return app
    return wrapped(app, kind)


def _uvicorn(module: Any) -> None:
    """All ways to start uvicorn come by `Config.load`, also gunicorn's workers, ``fastapi run`` and reloads."""
    original = module.Config.load

    @functools.wraps(original)
    def load(self: Any) -> None:
        original(self)
        self.loaded_app = _below(self.loaded_app)

    module.Config.load = load


def _below(app: Any) -> Any:
    """Wrap what is inside of uvicorn's own middleware; its adapters for other protocols count as the app."""
    if type(app).__name__ in ("ProxyHeadersMiddleware", "MessageLoggerMiddleware"):
        app.app = _below(app.app)
        return app
    return _wrapped(app, "ASGI")


def _gunicorn(module: Any) -> None:
    """The app is loaded once in each worker, or in the master with ``--preload``."""
    original = module.BaseApplication.wsgi

    @functools.wraps(original)
    def wsgi(self: Any) -> Any:
        is_loaded = self.callable is not None
        app = original(self)
        if not is_loaded:
            self.callable = _wrapped(app)
        return self.callable

    module.BaseApplication.wsgi = wsgi


def _hypercorn(module: Any) -> None:
    """It puts each app into one of two classes of its own."""
    module.ASGIWrapper.__init__ = _first_wrapped(module.ASGIWrapper.__init__, "ASGI")
    module.WSGIWrapper.__init__ = _first_wrapped(module.WSGIWrapper.__init__, "WSGI")


def _daphne(module: Any) -> None:
    """The command, and ``runserver`` of Channels, build a `Server`."""
    module.Server.__init__ = _first_wrapped(module.Server.__init__, "ASGI")


def _first_wrapped(build: Callable[..., None], kind: str) -> Callable[..., None]:
    @functools.wraps(build)
    def building(self: Any, *args: Any, **options: Any) -> None:
        if args:
            args = (_wrapped(args[0], kind), *args[1:])
        for name in {"app", "application"} & options.keys():
            options[name] = _wrapped(options[name], kind)
        build(self, *args, **options)

    return building


def _waitress(module: Any) -> None:
    """The command and ``waitress.serve`` come by `create_server`."""
    original = module.create_server

    @functools.wraps(original)
    def create_server(application: Any, *args: Any, **options: Any) -> Any:
        return original(_wrapped(application, "WSGI"), *args, **options)

    module.create_server = create_server


def _granian(module: Any) -> None:
    """Each worker loads its app by `load_target`."""
    original = module.load_target

    @functools.wraps(original)
    def load_target(*args: Any, **options: Any) -> Any:
        return _wrapped(original(*args, **options))

    module.load_target = load_target


PATCHES: dict[str, Callable[[Any], None]] = {
    "uvicorn.config": _uvicorn,
    "gunicorn.app.base": _gunicorn,
    "hypercorn.app_wrappers": _hypercorn,
    "granian._internal": _granian,
    "waitress.server": _waitress,
    "daphne.server": _daphne,
}
"""A server's module -> what changes it."""
