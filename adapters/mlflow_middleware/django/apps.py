"""The Django app, which registers the system checks and provides the project's settings to jobs."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from mlflow_middleware.django import configuration
from mlflow_middleware.django.checks import check_middleware, check_server, check_settings
from mlflow_middleware.request.defaults import load_by


class MLflowMiddlewareConfig(AppConfig):
    """App configuration, which Django finds through ``INSTALLED_APPS``."""

    name = "mlflow_middleware.django"
    label = "mlflow_middleware"
    verbose_name = "MLflow middleware"

    def ready(self) -> None:
        """Register the checks, and the loader of settings for jobs in workers, which create no middleware."""
        load_by(configuration.load)
        register(check_settings)
        register(check_middleware)
        register(check_server, deploy=True)
