"""Ids of traces and spans come from the operating system, not from ``random``."""

from __future__ import annotations

import random

import mlflow
from mlflow.entities import Trace


def test_the_apps_random_numbers_are_unchanged(traces: list[Trace]) -> None:
    """It has seeded them to get the same numbers each time."""
    random.seed(42)
    expected = random.random()
    random.seed(42)
    with mlflow.start_span("outer"), mlflow.start_span("inner"):
        pass

    assert random.random() == expected
    assert len(traces) == 1
