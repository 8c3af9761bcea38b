"""Django system checks, with stable ids.

* ``mlflow_middleware.E001``: an option in ``MLFLOW_MIDDLEWARE`` (or its environment variable) is unknown or ill-typed.
* ``mlflow_middleware.W001``: the app is installed, but the middleware is not in ``MIDDLEWARE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string

from mlflow_middleware.django import configuration
from mlflow_middleware.django.middleware import TraceMiddleware
from mlflow_middleware.settings import SettingsError

MIDDLEWARE = "mlflow_middleware.django.TraceMiddleware"


def check_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """One error for each wrong option."""
    try:
        configuration.load()
    except SettingsError as error:
        return [Error(problem, id="mlflow_middleware.E001") for problem in error.problems]
    return []


def check_middleware(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """A warning when nothing will be traced."""
    if any(_traces(path) for path in settings.MIDDLEWARE):
        return []
    return [
        CheckWarning(
            "mlflow_middleware.django is installed, but no request will be traced",
            hint=f"Add {MIDDLEWARE!r} as the first entry of MIDDLEWARE.",
            id="mlflow_middleware.W001",
        )
    ]


def _traces(path: str) -> bool:
    """Whether a middleware is ours or a project's subclass of it; one that cannot be imported Django reports."""
    try:
        middleware = import_string(path)
    except ImportError:
        return False
    return isinstance(middleware, type) and issubclass(middleware, TraceMiddleware)
