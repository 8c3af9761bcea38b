"""Support for Django in ``mlflow-middleware run``."""

from __future__ import annotations

from django.conf import settings

from mlflow_middleware.auto import own
from mlflow_middleware.django.asgi import serve_lifespan
from mlflow_middleware.django.checks import MIDDLEWARE, traces

__all__ = ["add", "serve_lifespan"]

_added: list[str] = []


def add() -> None:
    """Add the middleware before all others, unless the project already has it."""
    if any(map(traces, settings.MIDDLEWARE)):
        if not _added:
            own.left_alone()
        return
    _added.append(MIDDLEWARE)
    settings.MIDDLEWARE = [MIDDLEWARE, *settings.MIDDLEWARE]
