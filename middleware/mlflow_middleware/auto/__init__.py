"""Tracing of an app without a line in its code, started by ``mlflow-middleware run`` in each Python process.

A web framework or a server is patched on its import, so that the app is wrapped as a line in its code would wrap it.
Other imports are not affected, and a process without such an import does not load our code.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

TARGETS = {
    "mlflow_middleware.asgi": "mlflow_middleware.auto.own",
    "mlflow_middleware.wsgi": "mlflow_middleware.auto.own",
    "starlette.applications": "mlflow_middleware.auto.frameworks",
    "fastapi.applications": "mlflow_middleware.auto.frameworks",
    "flask.app": "mlflow_middleware.auto.frameworks",
    "django.core.handlers.base": "mlflow_middleware.auto.frameworks",
    "django.core.handlers.asgi": "mlflow_middleware.auto.frameworks",
    "uvicorn.config": "mlflow_middleware.auto.servers",
    "gunicorn.app.base": "mlflow_middleware.auto.servers",
    "hypercorn.app_wrappers": "mlflow_middleware.auto.servers",
    "granian._internal": "mlflow_middleware.auto.servers",
    "waitress.server": "mlflow_middleware.auto.servers",
    "daphne.server": "mlflow_middleware.auto.servers",
    "werkzeug.serving": "mlflow_middleware.auto.servers",
}
"""Module -> our module whose ``patch(module)`` patches it after its import."""


class Finder(MetaPathFinder):
    """Finder that patches the targets when they are loaded; the other finders locate them."""

    def __init__(self) -> None:
        self._finding: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if fullname not in TARGETS or fullname in self._finding:
            return None
        self._finding.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._finding.discard(fullname)
        if spec is not None and spec.loader is not None:
            _patch_after(spec.loader)
        return spec


def _patch_after(loader: Any) -> None:
    """Make a loader patch the module that it is about to execute."""
    execute: Callable[[ModuleType], None] = loader.exec_module

    def execute_and_patch(module: ModuleType) -> None:
        execute(module)
        patch(module)

    try:
        loader.exec_module = execute_and_patch
    except AttributeError as error:
        report(f"the app may not be traced: its modules are loaded by {type(loader).__name__} ({error})")


def patch(module: ModuleType) -> None:
    """Patch an imported module; report a failure, and let the app continue."""
    try:
        importlib.import_module(TARGETS[module.__name__]).patch(module)
    except Exception as error:
        report(f"the app may not be traced: {module.__name__} cannot be patched ({type(error).__name__}: {error})")


def report(line: str) -> None:
    """Print a line for the user who has started the app; logging is not configured yet."""
    print(f"mlflow-middleware run: {line}", file=sys.stderr, flush=True)  # noqa: T201


def install() -> None:
    """Patch the targets that have been imported already, and those that will be."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
        for name in TARGETS.keys() & sys.modules.keys():
            patch(sys.modules[name])
