"""Ratings of stored traces: the feedback on them, as it is shown and counted."""

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
        name: The name of the feedback, such as ``response_is_correct``.
        value: The rating.
        by: The id of the user, or the name of the judge, who gave it.
        is_human: Whether a person gave it.
        comment: The rationale, if any.
    """

    name: str
    value: Any
    by: str | None
    is_human: bool
    comment: str | None


def ratings_of(trace: TraceInfo) -> list[Rating]:
    """Return a trace's current ratings, without replaced or failed ones."""
    from mlflow.entities import Feedback

    return [
        Rating(each.name, each.value, each.source.source_id, each.source.source_type == "HUMAN", each.rationale)
        for each in trace.assessments
        if isinstance(each, Feedback) and each.valid is not False and each.error is None
    ]


def is_good(value: Any, good_from: float) -> bool:
    """Return whether a rating is good; a number is good if it is at least ``good_from``."""
    if isinstance(value, int | float):
        return value >= good_from if not isinstance(value, bool) else value
    return isinstance(value, str) and value.strip().lower() in GOOD
