"""The versions of MLflow's client that this is tested with; nothing of MLflow is imported here."""

from __future__ import annotations

import re

FLOOR = (3, 11)
"""The oldest; what it lacks of the bridge's names, no older one has."""

CEILING = (3, 18)
"""The newest. One after it may work, but nobody has tried."""


def requirement(package: str = "mlflow-tracing") -> str:
    """What pip is to be asked for, if another version of a package of MLflow's is in the way."""
    return f"{package or 'mlflow-tracing'}>={_text(FLOOR)},<{CEILING[0]}.{CEILING[1] + 1}"


def in_words() -> str:
    """The range, as a person reads it."""
    return f"{_text(FLOOR)} to {_text(CEILING)}"


def is_too_old(version: str) -> bool:
    """Whether a version of MLflow is older than the oldest; false for one that cannot be read."""
    found = _parts(version)
    return found is not None and found < FLOOR


def is_untried(version: str) -> bool:
    """Whether a version of MLflow is newer than the newest; false for one that cannot be read."""
    found = _parts(version)
    return found is not None and found > CEILING


def _parts(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
