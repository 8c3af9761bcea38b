"""The versions of MLflow's client that the middleware is tested with; this module does not import MLflow."""

from __future__ import annotations

import re

FLOOR = (3, 11)
"""The oldest tested version; older ones lack names that the bridge needs."""

CEILING = (3, 18)
"""The newest tested version; later ones may work, but are untested."""


def requirement(package: str = "mlflow-tracing") -> str:
    """Return the requirement for pip that replaces an unsupported version of one of MLflow's packages."""
    return f"{package or 'mlflow-tracing'}>={_text(FLOOR)},<{CEILING[0]}.{CEILING[1] + 1}"


def in_words() -> str:
    """Return the range in words, for messages."""
    return f"{_text(FLOOR)} to {_text(CEILING)}"


def is_too_old(version: str) -> bool:
    """Return whether a version of MLflow is older than the oldest tested one; false if it cannot be parsed."""
    found = _parts(version)
    return found is not None and found < FLOOR


def is_untried(version: str) -> bool:
    """Return whether a version of MLflow is newer than the newest tested one; false if it cannot be parsed."""
    found = _parts(version)
    return found is not None and found > CEILING


def _parts(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
