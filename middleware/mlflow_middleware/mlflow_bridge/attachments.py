"""Files that are extracted from a request's inputs and outputs, as MLflow's attachments."""

from __future__ import annotations

import importlib
from typing import Any

from mlflow.tracing.attachments import Attachment

_variables: Any = importlib.import_module("mlflow.environment_variables")


def attachment(trace_id: str, content_type: str, content: bytes) -> tuple[str, str] | None:
    """Return the id and the reference of a file; None if the file should stay in place.

    Args:
        trace_id: The id of its trace.
        content_type: Its media type.
        content: The whole content.
    """
    if not _value_of("MLFLOW_TRACE_EXTRACT_ATTACHMENTS", True):
        return None
    longest = _value_of("MLFLOW_TRACE_MAX_ATTACHMENT_SIZE", None)
    if longest and len(content) > longest:
        return "", f"[Attachment too large: {len(content)} bytes exceeds {longest} bytes limit]"
    made = Attachment(content_type=content_type, content_bytes=content)
    return made.id, made.ref(trace_id)


def _value_of(name: str, otherwise: Any) -> Any:
    """Return the value of one of MLflow's variables, or a default if the installed version does not know it."""
    variable = getattr(_variables, name, None)
    return variable.get() if variable else otherwise
