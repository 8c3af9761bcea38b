"""Django system checks, with stable ids.

``manage.py check --deploy`` also runs ``mlflow-middleware check``, with one id for each step that can fail. The page of
Django in the documentation lists all ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string

from mlflow_middleware.commands import check
from mlflow_middleware.django import configuration
from mlflow_middleware.django.middleware import TraceMiddleware
from mlflow_middleware.settings import SettingsError

STEP_IDS = {
    "MLflow client": "E002",
    "tracking URI": "E003",
    "reachability": "E004",
    "TLS": "E005",
    "server version": "E006",
    "credentials": "E007",
    "experiment": "E008",
    "write": "E009",
    "read back": "E010",
    "spool": "E011",
    "collector": "E012",
    "clock": "W002",
}
"""Step of ``mlflow-middleware check`` -> id of its message. The ids never change."""

MIDDLEWARE = "mlflow_middleware.django.TraceMiddleware"


def check_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Return one error for each wrong option."""
    try:
        configuration.load()
    except SettingsError as error:
        return [Error(problem, id="mlflow_middleware.E001") for problem in error.problems]
    return []


def check_middleware(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Return a warning if no request will be traced."""
    if any(traces(path) for path in settings.MIDDLEWARE):
        return []
    return [
        CheckWarning(
            "mlflow_middleware.django is installed, but no request will be traced",
            hint=f"Add {MIDDLEWARE!r} as the first entry of MIDDLEWARE.",
            id="mlflow_middleware.W001",
        )
    ]


def check_server(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Return the problems that keep traces from their server; `check_settings` already reports wrong options."""
    failed = [result for result in check.walk(configuration.load) if result.outcome == "failed"]
    return [_message(result) for result in failed if result.step in STEP_IDS]


def _message(result: check.Result) -> CheckMessage:
    kind = STEP_IDS[result.step]
    message = Error if kind.startswith("E") else CheckWarning
    return message(f"{result.step}: {result.message}", id=f"mlflow_middleware.{kind}")


def traces(path: str) -> bool:
    """Return whether a path names our middleware or a subclass; Django itself reports paths that cannot be imported."""
    try:
        middleware = import_string(path)
    except ImportError:
        return False
    return isinstance(middleware, type) and issubclass(middleware, TraceMiddleware)
