"""What the app says of a trace while that is in flight: feedback, expectations, each of which a server is told once."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Assessment

from mlflow_middleware.capture.strict_json import parsed, written
from mlflow_middleware.mlflow_bridge.span_attributes import sendable


@dataclass(slots=True)
class Assessed:
    """How far a server knows the assessments of a trace, of which each upload of its info may create new ones.

    Attributes:
        stored: How many of them it has, the oldest.
    """

    stored: int = 0


def unsent(given: Sequence[Assessment], known: Assessed | None, *, with_ids: bool = True) -> list[Assessment]:
    """Copies of the assessments that a server is still to be told, as it can store them.

    Args:
        given: All of the trace.
        known: Those that it has already; None for none.
        with_ids: Whether each gets an id here, by which one that is sent again replaces itself. A workspace gives ids
            of its own.
    """
    left = given[known.stored :] if known else given
    for each in left:
        if with_ids and each.assessment_id is None:
            each.assessment_id = f"a-{uuid.uuid4().hex}"
    return [_storable(each) for each in left]


def _storable(assessment: Assessment) -> Assessment:
    found = copy.copy(assessment)
    found.name, found.rationale = sendable(found.name), sendable(found.rationale)
    found.metadata = _texts(found.metadata) if found.metadata else found.metadata
    found.source = copy.copy(found.source)
    found.source.source_id = sendable(found.source.source_id)
    for kind in ("feedback", "expectation"):
        if content := getattr(found, kind):
            setattr(found, kind, changed := copy.copy(content))
            changed.value = _value(changed.value)
    if found.feedback and found.feedback.error:
        found.feedback.error = error = copy.copy(found.feedback.error)
        for name in ("error_code", "error_message", "stack_trace"):
            setattr(error, name, sendable(getattr(error, name)))
    return found


def _texts(values: Mapping[Any, Any]) -> dict[str, str]:
    return {sendable(str(key)): sendable(str(value)) for key, value in values.items()}


def _value(value: Any) -> Any:
    """A value that protobuf's ``Value`` can hold, however the app has nested it."""
    if value is None or isinstance(value, str | bool):
        return sendable(value)
    try:
        return written(parsed(json.dumps(value, ensure_ascii=False, default=str)))[0]
    except (ValueError, TypeError, RecursionError):  # it holds itself, or keys that JSON has not
        return sendable(repr(value))
