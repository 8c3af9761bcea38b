"""The assessments that the app makes of a trace in flight: feedback and expectations, each sent to a server once."""

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
    """The progress of sending a trace's assessments; each upload of its info may create new ones.

    Attributes:
        stored: Number of assessments that the server has, from the oldest.
    """

    stored: int = 0


def unsent(given: Sequence[Assessment], known: Assessed | None, *, with_ids: bool = True) -> list[Assessment]:
    """Return copies of the assessments that the server does not have yet, in a form that it can store.

    Args:
        given: All assessments of the trace.
        known: The progress so far; None for none.
        with_ids: Whether to give each an id, so that sending it again replaces it. Workspaces assign their own ids.
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
    """Return a value that protobuf's ``Value`` can hold, regardless of the app's nesting."""
    if value is None or isinstance(value, str | bool):
        return sendable(value)
    try:
        return written(parsed(json.dumps(value, ensure_ascii=False, default=str)))[0]
    except (ValueError, TypeError, RecursionError):  # it contains itself, or keys that JSON does not allow
        return sendable(repr(value))
