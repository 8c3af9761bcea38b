"""Redaction of the app's own spans, configured per process and not per middleware."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mlflow_middleware.capture.redaction import REDACTED, Redactor

_MLFLOWS = "mlflow."
"""Prefix of MLflow's own attributes; ``mlflow.chat.tokenUsage`` is not a secret."""

_NEVER_SECRET = frozenset(
    f"mlflow.{name}"
    for name in (
        *("traceRequestId", "spanType", "spanLogLevel", "spanFunctionName", "experimentId", "chat.tokenUsage"),
        *("llm.cost", "llm.model", "llm.provider", "message.format"),
    )
)
"""Attributes that MLflow sets itself, without content."""

_NO_SECRET = re.compile(r"true|false|null|-?[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?")
"""Booleans, null and fractions in JSON: values such as those of ``use_auth`` and ``time_to_first_token``."""

_WORDLESS = _NEVER_SECRET | frozenset(
    (
        *(
            "gen_ai.request.model",
            "gen_ai.response.model",
            "gen_ai.provider.name",
            "gen_ai.system",
            "gen_ai.response.id",
        ),
        *("gen_ai.operation.name", "gen_ai.response.finish_reasons", "gen_ai.conversation.id", "gen_ai.output.type"),
        *("gen_ai.agent.name", "gen_ai.tool.name", "gen_ai.token.type", "gen_ai.request.encoding_formats"),
        *("llm.model_name", "llm.provider", "llm.system", "llm.request.type", "embedding.model_name"),
        *("openinference.span.kind", "traceloop.span.kind", "tool.name", "code.function.name", "code.file.path"),
        *("http.request.method", "http.route", "http.response.status_code", "url.scheme", "server.address"),
        *("network.protocol.name", "network.protocol.version", "rpc.system", "rpc.service", "rpc.method"),
        *("db.system", "db.system.name", "db.operation.name", "db.collection.name", "db.namespace"),
        *("error.type", "exception.type", "exception.escaped", "session.id", "user.id", "user.hash"),
    )
)
"""Attributes whose text is stored even without content: names, ids and types."""

_NUMBER = re.compile(r"true|false|null|-?[0-9.]+(?:[eE][+-]?[0-9]+)?")
"""JSON scalars other than text."""

_SAID = re.compile(r"mlflow\.span(?:Inputs|Outputs)|gen_ai\.(?:prompt|completion)|.*\.(?:value|content|arguments)")
"""Attributes with the inputs and outputs of a call, whose numbers may be content, too."""

_redactors: list[Redactor] = []
"""The redactor of this process, if any."""

_content: list[str] = ["all"]
"""The option ``content`` of this process."""

_is_wordless: ContextVar[bool] = ContextVar("_is_wordless", default=False)


def redact_with(redactor: Redactor | None, content: str = "all") -> None:
    """Redact spans from now on; with None, leave them unchanged.

    Args:
        redactor: The redactor.
        content: The option ``content`` for traces outside a request.
    """
    _redactors[:] = [redactor] if redactor else []
    _content[:] = [content]


def process_keeps_words() -> bool:
    """Return whether content is stored for traces outside a request."""
    return _content[0] == "all"


@contextmanager
def without_words() -> Iterator[None]:
    """Leave out all content inside the block; see `redacted` and `redacted_text`."""
    token = _is_wordless.set(True)
    try:
        yield
    finally:
        _is_wordless.reset(token)


def is_wordless() -> bool:
    """Return whether content is left out in this context."""
    return _is_wordless.get()


def _wordless(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes without content: numbers, and known names, ids and types."""
    return {key: value for key, value in list(attributes.items()) if key in _WORDLESS or _has_no_content(key, value)}


def _has_no_content(key: str, value: Any) -> bool:
    return _has_no_words(value) and _SAID.fullmatch(key) is None


def _has_no_words(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    if isinstance(value, list | tuple):
        return not any(isinstance(each, str | bytes) for each in value)
    return isinstance(value, int | float)


def redacted(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes of a span or an event, redacted; the same object if there is nothing to redact.

    Args:
        attributes: JSON texts, as MLflow stores its own, or any other values that OpenTelemetry allows.
    """
    if _is_wordless.get():
        attributes = _wordless(attributes)
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
    """Return a status message or a preview, redacted."""
    if _is_wordless.get():
        return None
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
