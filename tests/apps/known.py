"""Features of the installed MLflow: test apps use those that it has, and tests skip those that it lacks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import mlflow


def takes(function: Callable[..., Any], *names: str) -> bool:
    """Return whether a function has all of these parameters."""
    return set(names) <= inspect.signature(function).parameters.keys()


def taken(function: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    """Return those of the arguments that a function has parameters for."""
    return {name: value for name, value in arguments.items() if takes(function, name)}


def identity(**metadata: str) -> dict[str, Any]:
    """Return arguments of ``mlflow.update_current_trace`` for a trace's session, user and further metadata.

    Args:
        metadata: ``session_id`` and ``user``, parameters since MLflow 3.12 and metadata before; all else is metadata.
    """
    keys = {"session_id": "mlflow.trace.session", "user": "mlflow.trace.user"}
    known = taken(mlflow.update_current_trace, **{name: metadata[name] for name in keys if name in metadata})
    rest = {keys.get(name, name): value for name, value in metadata.items() if name not in known}
    return {**known, "metadata": rest} if rest else known


HAS_LINKS = hasattr(mlflow.entities, "Link")
NO_LINKS = f"MLflow {mlflow.__version__} has no span links; 3.13 is the first that has"

TAKES_FILES_OUT = hasattr(mlflow.environment_variables, "MLFLOW_TRACE_EXTRACT_ATTACHMENTS")
"""Return whether MLflow stores the files in a chat's messages as attachments: since 3.12."""
