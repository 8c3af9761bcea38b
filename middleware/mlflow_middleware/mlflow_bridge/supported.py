"""Which versions of MLflow are supported: those that the tests run with."""

from __future__ import annotations

import re

FLOOR = (3, 11)
"""The oldest."""

NEWEST = (3, 18)
"""The newest one that was tested; later ones are used as far as they fit."""

RANGE = f"{FLOOR[0]}.{FLOOR[1]} to {NEWEST[0]}.{NEWEST[1]}"
REQUIREMENT = f"mlflow-tracing>={FLOOR[0]}.{FLOOR[1]},<{NEWEST[0]}.{NEWEST[1] + 1}"
"""What pip is to be asked for, when another one does not fit."""


def complaint(package: str) -> str:
    """The log line for a package that is older than the oldest supported version; empty for others.

    Args:
        package: Its name and version, such as ``mlflow-tracing 3.10.1``.
    """
    match = re.search(r" (\d+)\.(\d+)", package)
    if match is None or (int(match[1]), int(match[2])) >= FLOOR:
        return ""
    return (
        f"{package} is older than what this mlflow-middleware supports, MLflow {RANGE}: traces may be incomplete or "
        f"missing. pip install '{REQUIREMENT}'"
    )
