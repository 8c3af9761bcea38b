"""A span in one form, whatever the tool."""

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
"""Starts of the names under which is what was said, and not what is known of it."""


@dataclass
class Span:
    """A span, or what the tool calls so.

    Attributes:
        start: Seconds since 1970.
        error: What is said of the error, if it is one.
        values: All else that arrived of it, nested values by dotted names.
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
        """The values that are not what was said."""
        return {name: value for name, value in self.values.items() if not name.startswith(SAID)}


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names; JSON as text counts as nested."""
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
