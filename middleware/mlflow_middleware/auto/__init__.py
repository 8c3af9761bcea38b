"""Tracing of an app that does not know of it: what ``mlflow-middleware run`` starts in each Python process.

When a web framework or a server is imported, it is changed so that the app is wrapped as its own line would do it. The
import of nothing else is touched, and a process that imports none of them does not load us.
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
}
"""Module -> ours whose ``patch(module)`` changes it, once it has been imported."""


class Finder(MetaPathFinder):
    """Has the targets patched as soon as they are loaded; leaves it to the other finders to find them."""

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
    """Patch the module that a loader is about to execute."""
    execute: Callable[[ModuleType], None] = loader.exec_module

    def execute_and_patch(module: ModuleType) -> None:
        execute(module)
        patch(module)

    try:
        loader.exec_module = execute_and_patch
    except AttributeError as error:
        say(f"the app may not be traced: its modules are loaded by {type(loader).__name__} ({error})")


def patch(module: ModuleType) -> None:
    """Change a module that has been imported; a failure is reported, and the app goes on."""
    try:
        importlib.import_module(TARGETS[module.__name__]).patch(module)
    except Exception as error:
        say(f"the app may not be traced: {module.__name__} cannot be patched ({type(error).__name__}: {error})")


def say(line: str) -> None:
    """Tell whoever has started the app; at this time no log is configured."""
    print(f"mlflow-middleware run: {line}", file=sys.stderr, flush=True)  # noqa: T201


def install() -> None:
    """Have what is imported from now on patched, and what has been imported already."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
        for name in TARGETS.keys() & sys.modules.keys():
            patch(sys.modules[name])
