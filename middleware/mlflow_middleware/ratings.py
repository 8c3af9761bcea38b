"""What people think of stored traces: the feedback on them, as it is shown and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities.trace_info import TraceInfo

GOOD = frozenset(("yes", "true", "good", "correct", "up", "positive"))
"""Textual ratings that count as good."""


@dataclass(frozen=True, slots=True)
class Rating:
    """Feedback on a trace.

    Attributes:
        name: What was rated.
        value: The rating.
        by: Who gave it: a user's id, or a judge's name.
        is_human: Whether a person gave it.
        comment: Why.
    """

    name: str
    value: Any
    by: str | None
    is_human: bool
    comment: str | None


def ratings_of(trace: TraceInfo) -> list[Rating]:
    """Return the ratings that no later one replaced."""
    from mlflow.entities import Feedback

    return [
        Rating(each.name, each.value, each.source.source_id, each.source.source_type == "HUMAN", each.rationale)
        for each in trace.assessments
        if isinstance(each, Feedback) and each.valid is not False and each.error is None
    ]


def is_good(value: Any, good_from: float) -> bool:
    """Whether a rating is a good one; a number is from ``good_from`` on."""
    if isinstance(value, int | float):
        return value >= good_from if not isinstance(value, bool) else value
    return isinstance(value, str) and value.strip().lower() in GOOD
