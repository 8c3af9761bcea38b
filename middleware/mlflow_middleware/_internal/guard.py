"""The guard that keeps failures of tracing out of the app.

The first failure of each kind is logged with its traceback; later ones are counted.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from mlflow_middleware._internal import closed_streams

closed_streams.install()  # here, because every module that logs imports this one
logger = logging.getLogger("mlflow_middleware")
failures: Counter[tuple[str, str]] = Counter()
"""Number of failures in this process for each (function, exception type)."""

P = ParamSpec("P")
R = TypeVar("R")


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Decorate a function of the middleware so that it reports an exception and returns None instead of raising."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            report(getattr(function, "__qualname__", repr(function)), error)
            return None

    return wrapper


def report(where: str, error: Exception) -> None:
    """Log the first failure of a kind; count later ones."""
    kind = (where, type(error).__qualname__)
    failures[kind] += 1
    if failures[kind] == 1:
        logger.error(
            "tracing failed in '%s': the app is not affected, but a trace is missing or incomplete. "
            "Further failures of this kind are counted, not logged.",
            where,
            exc_info=error,
        )
