"""Files that are taken out of a request's inputs and outputs, as MLflow's attachments."""

from __future__ import annotations

import importlib
from typing import Any

from mlflow.tracing.attachments import Attachment

_variables: Any = importlib.import_module("mlflow.environment_variables")


def attachment(trace_id: str, content_type: str, content: bytes) -> tuple[str, str] | None:
    """Return the id and the reference of a file; None if it is to stay where it is.

    Args:
        trace_id: Of the trace that it belongs to.
        content_type: Its media type.
        content: All of it.
    """
    if not _value_of("MLFLOW_TRACE_EXTRACT_ATTACHMENTS", True):
        return None
    longest = _value_of("MLFLOW_TRACE_MAX_ATTACHMENT_SIZE", None)
    if longest and len(content) > longest:
        return "", f"[Attachment too large: {len(content)} bytes exceeds {longest} bytes limit]"
    made = Attachment(content_type=content_type, content_bytes=content)
    return made.id, made.ref(trace_id)


def _value_of(name: str, otherwise: Any) -> Any:
    """The value of a variable of MLflow's, where the installed version knows it."""
    variable = getattr(_variables, name, None)
    return variable.get() if variable else otherwise
