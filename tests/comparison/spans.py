"""A span in one form, for all tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SAID = (
    "mlflow.spanInputs",
    "mlflow.spanOutputs",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "fastapi.arguments",
    "gen_ai.output",
    "inputs",
    "outputs",
    "meta.input",
    "meta.output",
    "info.request_preview",
    "info.response_preview",
    "info.trace_metadata.mlflow.traceInputs",
    "info.trace_metadata.mlflow.traceOutputs",
    "events",
)
"""Prefixes of the names of contents, as opposed to facts about the request."""


@dataclass
class Span:
    """A span, or the tool's equivalent.

    Attributes:
        start: Seconds since 1970.
        error: The description of the error, if it is one.
        values: All other data of it, nested values by dotted names.
    """

    trace: str
    id: str
    parent: str | None
    name: str
    start: float
    error: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    links: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return "\n".join([self.name, self.error or "", *map(str, self.values.values())])

    @property
    def known(self) -> dict[str, Any]:
        """Return the values that are not contents."""
        return {name: value for name, value in self.values.items() if not name.startswith(SAID)}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Return nested values by dotted names; JSON as text counts as nested."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            yield name, value
            return
    if isinstance(value, dict):
        for key, each in value.items():
            yield from flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from flat(each, f"{name}.{index}")
    else:
        yield name, value
