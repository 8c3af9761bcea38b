"""The Django app: registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from mlflow_middleware.django.checks import check_middleware, check_server, check_settings


class MLflowMiddlewareConfig(AppConfig):
    """Found by Django through ``INSTALLED_APPS``."""

    name = "mlflow_middleware.django"
    label = "mlflow_middleware"
    verbose_name = "MLflow middleware"

    def ready(self) -> None:
        """Register the checks."""
        register(check_settings)
        register(check_middleware)
        register(check_server, deploy=True)
