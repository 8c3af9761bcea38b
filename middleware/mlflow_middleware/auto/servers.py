"""The patches of servers, at the points where they get the app that they serve.

Each function patches one module of one server. The server's own wrappers of the app, such as uvicorn's for proxy
headers, stay outside ours, as they do with a line in the app. Our own code is loaded with the app, not before, so that
a supervisor that only watches its workers does not need it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mlflow_middleware.auto import frameworks, report


def patch(module: Any) -> None:
    """Patch a server's module, chosen by its name."""
    PATCHES[module.__name__](module)


def _wrapped(app: Any, kind: str = "") -> Any:
    try:
        from mlflow_middleware.auto.wrapping import wrapped
    except Exception as error:
        report(f"the app is not traced: {type(error).__name__}: {error}")
        return app
    return wrapped(app, kind)


def _uvicorn(module: Any) -> None:
    """Patch `Config.load`, which all starts of uvicorn use, including gunicorn's workers, ``fastapi run``, reloads."""
    original = module.Config.load

    @functools.wraps(original)
    def load(self: Any) -> None:
        original(self)
        self.loaded_app = _below(self.loaded_app)

    module.Config.load = load


def _below(app: Any) -> Any:
    """Wrap the app inside uvicorn's own middleware; its adapters for other protocols count as the app."""
    if type(app).__name__ in ("ProxyHeadersMiddleware", "MessageLoggerMiddleware"):
        app.app = _below(app.app)
        return app
    return _wrapped(app, "ASGI")


def _gunicorn(module: Any) -> None:
    """Patch the loading of the app: once in each worker, or in the master with ``--preload``."""
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
    """Patch the two classes that Hypercorn wraps apps with."""
    module.ASGIWrapper.__init__ = _first_wrapped(module.ASGIWrapper.__init__, "ASGI")
    module.WSGIWrapper.__init__ = _first_wrapped(module.WSGIWrapper.__init__, "WSGI")


def _daphne(module: Any) -> None:
    """Patch `Server`, which the command and ``runserver`` of Channels use."""
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


def _werkzeug(module: Any) -> None:
    """Patch `make_server`, which ``flask run`` and ``app.run()`` use; a debugger around the app stays outside ours."""
    original = module.make_server

    @functools.wraps(original)
    def make_server(host: str, port: int, app: Any = None, *args: Any, **options: Any) -> Any:
        frameworks.served(getattr(app, "app", app))
        return original(host, port, app, *args, **options)

    module.make_server = make_server


def _waitress(module: Any) -> None:
    """Patch `create_server`, which the command and ``waitress.serve`` use."""
    original = module.create_server

    @functools.wraps(original)
    def create_server(application: Any, *args: Any, **options: Any) -> Any:
        return original(_wrapped(application, "WSGI"), *args, **options)

    module.create_server = create_server


def _granian(module: Any) -> None:
    """Patch `load_target`, by which each worker loads its app."""
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
    "werkzeug.serving": _werkzeug,
}
"""A server's module -> its patch."""
