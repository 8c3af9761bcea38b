"""The settings of the process, for code that runs outside a request."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_middleware.request.activation import current_request
from mlflow_middleware.settings import Settings

_known: list[Settings] = []
_load: list[Callable[..., Settings]] = [Settings.load]


def remember(settings: Settings) -> None:
    """Remember a middleware's settings; only the first call in a process counts."""
    if not _known:
        _known.append(settings)


def load_by(load: Callable[..., Settings]) -> None:
    """Set a framework's own loader of settings, for processes without a middleware, such as workers."""
    _load[:] = [load]


def loaded(**options: object) -> Settings:
    """Load the settings, with options given in code.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    return _load[0](**options)


def settings_here() -> Settings:
    """Return the settings of the current request, or else those of the process.

    Raises:
        SettingsError: An option in the environment is unknown or ill-typed.
    """
    if request := current_request.get():
        return request.settings
    if not _known:
        remember(loaded())
    return _known[0]
