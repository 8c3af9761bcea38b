"""The recognition and wrapping of the app that a server is about to serve."""

from __future__ import annotations

import inspect
from typing import Any

from mlflow_middleware import asgi, wsgi
from mlflow_middleware.auto import frameworks, own, report
from mlflow_middleware.settings import Settings

FRAMEWORKS = {
    "starlette.applications.Starlette",
    "flask.app.Flask",
    "django.core.handlers.base.BaseHandler",
}
"""Apps that are traced by their own adapters under any server."""


def wrapped(app: Any, kind: str = "") -> Any:
    """Return an app in the form that a server should serve: traced, or unchanged if it traces itself or is unknown.

    Args:
        app: The app.
        kind: ``ASGI`` or ``WSGI`` if the server knows it; otherwise it is detected.

    Raises:
        SettingsError: An option in the environment is unknown or ill-typed.
    """
    if own.found() or isinstance(app, (asgi.TraceMiddleware, wsgi.TraceMiddleware)):
        return app
    settings = Settings.load()  # here, so that a wrong option fails the server's start
    if is_of_framework(app):
        frameworks.served(app)
        return app
    kind = kind or interface(app)
    if kind not in ("ASGI", "WSGI"):
        report(f"the app is not traced: {type(app).__qualname__} is {kind}, not ASGI 3 or WSGI")
        return app
    with own.adding():
        traced = asgi.TraceMiddleware if kind == "ASGI" else wsgi.TraceMiddleware
        return traced(app, settings=settings)


def is_of_framework(app: object) -> bool:
    """Return whether one of our adapters traces an app."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in FRAMEWORKS for kind in type(app).__mro__)


def interface(app: Any) -> str:
    """Return the kind of an app: ``ASGI``, ``WSGI``, or a description of one that is not wrapped."""
    if hasattr(app, "__rsgi__"):
        return "an RSGI app"
    try:
        count = len(_required(app))
    except (TypeError, ValueError):
        return "an app without a signature" if callable(app) else "no app"
    if inspect.isclass(app):
        return "WSGI" if count == 2 else "an ASGI 2 app or none"  # PEP 3333 has such a class
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__):
        return {3: "ASGI", 2: "an RSGI app"}.get(count, "an unknown kind of app")
    return {3: "ASGI", 2: "WSGI", 1: "an ASGI 2 app"}.get(count, "an unknown kind of app")


def _required(app: Any) -> list[inspect.Parameter]:
    """Return the required positional parameters of an app."""
    parameters = inspect.signature(app).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in parameters if each.kind in positional and each.default is inspect.Parameter.empty]
