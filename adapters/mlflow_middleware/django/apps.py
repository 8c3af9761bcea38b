"""The Django app: registers the system checks, and gives jobs the project's settings."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from mlflow_middleware.django import configuration
from mlflow_middleware.django.checks import check_middleware, check_server, check_settings
from mlflow_middleware.request.defaults import load_by


class MLflowMiddlewareConfig(AppConfig):
    """Found by Django through ``INSTALLED_APPS``."""

    name = "mlflow_middleware.django"
    label = "mlflow_middleware"
    verbose_name = "MLflow middleware"

    def ready(self) -> None:
        """Register the checks; and let jobs find the settings in a worker, which builds no middleware."""
        load_by(configuration.load)
        register(check_settings)
        register(check_middleware)
        register(check_server, deploy=True)
