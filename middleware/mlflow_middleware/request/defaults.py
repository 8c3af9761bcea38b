"""The settings for what runs outside of a request: those of the process."""

from __future__ import annotations

from collections.abc import Callable

from mlflow_middleware.request.activation import current_request
from mlflow_middleware.settings import Settings

_known: list[Settings] = []
_load: list[Callable[..., Settings]] = [Settings.load]


def remember(settings: Settings) -> None:
    """Take those of a middleware; the first of a process decides."""
    if not _known:
        _known.append(settings)


def load_by(load: Callable[..., Settings]) -> None:
    """Take a framework's own way to load them, for processes in which no middleware is built: its workers."""
    _load[:] = [load]


def loaded(**options: object) -> Settings:
    """Load them, with options given in code.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    return _load[0](**options)


def settings_here() -> Settings:
    """Return the settings of the request that this runs in, or else those of the process.

    Raises:
        SettingsError: An option in the environment is unknown or ill-typed.
    """
    if request := current_request.get():
        return request.settings
    if not _known:
        remember(loaded())
    return _known[0]
