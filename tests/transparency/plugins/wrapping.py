"""In the process that runs another project's tests: every app is wrapped, and each test's outcome is recorded.

A plugin for pytest (``-p wrapping``), in a folder that is put on the path alone, because each of the projects has a
package ``tests`` of its own. Environment variables:

* ``TRANSPARENCY_WAY``: a key of ``WAYS``, or ``plain``;
* ``TRANSPARENCY_OUTCOMES``: the file that the outcomes go to, as JSON.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_middleware import delivery
from mlflow_middleware._internal.guard import failures

DELIVERY = 60.0
"""Seconds that the delivery of the traces may take at most."""


def replace(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a function with the result of ``make``."""
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))


def around_asgi_clients(middleware: str) -> None:
    """Wrap the apps that Starlette's test client and httpx's transport receive."""
    import httpx2
    from starlette.testclient import TestClient

    wrapper = getattr(importlib.import_module(middleware), "TraceMiddleware")  # noqa: B009 - mypy: two types

    def testing(original: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            self.app = self._transport.app = wrapper(self.app)  # after it has detected ASGI 2 or 3

        return init

    def transporting(original: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
            original(self, wrapper(app), *args, **kwargs)

        return init

    replace(TestClient, "__init__", testing)
    replace(httpx2.ASGITransport, "__init__", transporting)


def added_to_starlette() -> None:
    """Add ``TraceMiddleware`` to each Starlette app, as its last middleware."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    from mlflow_middleware.fastapi import TraceMiddleware

    def building(original: Callable[..., Any]) -> Callable[..., Any]:
        def build(self: Any) -> Any:
            ours = Middleware(TraceMiddleware)
            self.user_middleware.insert(0, ours)
            try:
                return original(self)
            finally:
                self.user_middleware.remove(ours)  # tests look at it

        return build

    replace(Starlette, "build_middleware_stack", building)


def added_to_flask() -> None:
    """Call ``MLflowMiddleware(app)`` for each Flask app."""
    from flask import Flask

    from mlflow_middleware.flask import MLflowMiddleware

    def initialising(original: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            MLflowMiddleware(self)

        return init

    replace(Flask, "__init__", initialising)


def around_wsgi_clients() -> None:
    """Wrap the apps that Werkzeug's test client and its server receive."""
    import werkzeug.test
    from werkzeug.serving import BaseWSGIServer

    from mlflow_middleware.wsgi import TraceMiddleware

    def running(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda app, *args, **kwargs: original(TraceMiddleware(app), *args, **kwargs)

    def serving(original: Callable[..., None]) -> Callable[..., None]:
        return lambda self, host, port, app, *args, **kwargs: original(
            self, host, port, TraceMiddleware(app), *args, **kwargs
        )

    replace(werkzeug.test, "run_wsgi_app", running)
    replace(BaseWSGIServer, "__init__", serving)


def added_to_django() -> None:
    """Add the first entry of ``MIDDLEWARE``, even if a test sets it."""
    from django.core.handlers.base import BaseHandler
    from django.core.handlers.exception import convert_exception_to_response

    from mlflow_middleware.django import TraceMiddleware

    def loading(original: Callable[..., None]) -> Callable[..., None]:
        def load(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            self._middleware_chain = convert_exception_to_response(TraceMiddleware(self._middleware_chain))

        return load

    replace(BaseHandler, "load_middleware", loading)


def around_django() -> None:
    """Wrap the whole project in the ASGI and WSGI middleware, with Django's own middleware inside."""
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    from mlflow_middleware import asgi, wsgi

    def calling(original: Callable[..., Any]) -> Callable[..., Any]:
        async def call(self: Any, *args: Any) -> None:  # clients detect ASGI 3 by its being async
            await asgi.TraceMiddleware(functools.partial(original, self))(*args)

        return call

    def serving(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, *args: wsgi.TraceMiddleware(functools.partial(original, self))(*args)

    added_to_django()
    replace(ASGIHandler, "__call__", calling)
    replace(WSGIHandler, "__call__", serving)


WAYS: Mapping[str, Callable[[], None]] = {
    "mlflow_middleware.asgi around": functools.partial(around_asgi_clients, "mlflow_middleware.asgi"),
    "mlflow_middleware.fastapi around": functools.partial(around_asgi_clients, "mlflow_middleware.fastapi"),
    "mlflow_middleware.fastapi added": added_to_starlette,
    "mlflow_middleware.flask added": added_to_flask,
    "mlflow_middleware.wsgi around": around_wsgi_clients,
    "mlflow_middleware.django added": added_to_django,
    "mlflow_middleware.asgi and .wsgi around .django": around_django,
}
"""Functions that wrap the apps, by name."""


def wrap() -> None:
    """Wrap apps from here on, as the environment specifies."""
    WAYS.get(os.environ["TRANSPARENCY_WAY"], lambda: None)()


def write(outcomes: Mapping[str, str]) -> None:
    """Write the outcomes of all tests, the counts of the traces, and failures of tracing itself."""
    delivery.flush(DELIVERY)
    stats = delivery.stats()
    report = {
        "outcomes": outcomes,
        "delivered": stats.delivered,
        "lost": stats.waiting + sum(stats.dropped.values()),
        "failures": {f"{error} in {function}": count for (function, error), count in failures.items()},
    }
    Path(os.environ["TRANSPARENCY_OUTCOMES"]).write_text(json.dumps(report))


_outcomes: dict[str, str] = {}


def pytest_configure(config: object) -> None:
    """Wrap before any test module is imported."""
    wrap()


def pytest_runtest_logreport(report: Any) -> None:
    """Combine a test's set-up, call and tear-down: the worst of them is its outcome."""
    outcome = "expected to fail" if hasattr(report, "wasxfail") else report.outcome
    if _outcomes.setdefault(report.nodeid, outcome) == "passed":
        _outcomes[report.nodeid] = outcome
    elif outcome == "failed":
        _outcomes[report.nodeid] = "failed"


def pytest_sessionfinish(session: object) -> None:
    """Write the report."""
    write(_outcomes)
