"""The middleware's settings in a Django project."""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings as django_settings

from mlflow_middleware.settings import Settings, SettingsError

NAME = "MLFLOW_MIDDLEWARE"


def load(**options: object) -> Settings:
    """Build the settings from ``settings.MLFLOW_MIDDLEWARE`` and the environment.

    Args:
        options: Options given in code; they override the others.

    Raises:
        SettingsError: An option is unknown or ill-typed, or the setting is not a dict.
    """
    given = getattr(django_settings, NAME, {})
    if not isinstance(given, Mapping):
        raise SettingsError([f"settings.{NAME} must be a dict of options, not {type(given).__name__}"])
    return Settings.load(given, **options)
