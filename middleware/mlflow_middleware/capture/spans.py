"""Secrets in the spans that the app opens itself, which belong to the process and not to one middleware."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_middleware.capture.redaction import REDACTED, Redactor

_MLFLOWS = "mlflow."
"""What the names of MLflow's own attributes begin with: ``mlflow.chat.tokenUsage`` is no secret."""

_NEVER_SECRET = frozenset(
    f"mlflow.{name}"
    for name in (
        *("traceRequestId", "spanType", "spanLogLevel", "spanFunctionName", "experimentId", "chat.tokenUsage"),
        *("llm.cost", "llm.model", "llm.provider", "message.format"),
    )
)
"""Attributes that MLflow fills itself, with no words of anybody."""

_NO_SECRET = re.compile(r"true|false|null|-?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?")
"""True, false, null and fractions in JSON: ``use_auth`` and ``time_to_first_token`` are no secrets."""

_redactors: list[Redactor] = []
"""The one of this process, if any."""


def redact_with(redactor: Redactor | None) -> None:
    """Redact spans from here on; with None, leave them as they are."""
    _redactors[:] = [redactor] if redactor else []


def redacted(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes of a span or an event without their secrets; the same object where there are none.

    Args:
        attributes: JSON texts, as MLflow stores its own, or what else OpenTelemetry allows.
    """
    if not _redactors:
        return attributes
    redactor, changed = _redactors[0], {}
    if "exception.stacktrace" in attributes:
        attributes = redactor.exception(attributes)
    for key, value in list(attributes.items()):
        if key not in _NEVER_SECRET and (new := _value(redactor, key, value)) is not value:
            changed[key] = new
    return {**attributes, **changed} if changed else attributes


def redacted_text(text: str | None) -> str | None:
    """A status message or a preview without its secrets."""
    return _redactors[0].message(text) if _redactors and text else text


def _value(redactor: Redactor, key: str, value: Any) -> Any:
    if isinstance(value, str):
        is_kept = key.startswith(_MLFLOWS) or _NO_SECRET.fullmatch(value)
        if not is_kept and redactor.is_secret(key, value.strip('"')):
            return f'"{REDACTED}"' if value[:1] in ('"', "{", "[") else REDACTED
        return redactor.string(value)
    if isinstance(value, int) and not key.startswith(_MLFLOWS):
        return REDACTED if redactor.is_secret(key, value) else value
    if isinstance(value, list | tuple):
        found = tuple(redactor.value(key, each) if isinstance(each, str) else each for each in value)
        return value if found == tuple(value) else found
    return value
