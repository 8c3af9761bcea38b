"""Ids of traces and spans come from the operating system: none comes twice, whatever the app does to ``random``."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import mlflow
from mlflow.entities import Trace

from tests.servers import ROOT, clean_environment

RUN = [sys.executable, "-W", "ignore", "-m", "tests.apps.seeded"]
IDS_OF_A_ROUND = 10 * (3 + 2)
"""A request's trace and its two spans, and a trace by hand with its span."""


def test_no_id_comes_twice_in_an_app_that_seeds_random() -> None:
    """Not in two runs, not in a forked child, and not in one that was forked behind Python's back."""
    lines: list[str] = []
    for _ in range(2):
        ended = subprocess.run(
            RUN, env=clean_environment(), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == 0, ended.stderr
        lines += ended.stdout.splitlines()

    ids = [line.rpartition(" ")[2] for line in lines]
    assert Counter(line.rpartition(" ")[0] for line in lines) == dict.fromkeys(
        ("parent", "child", "child in C", "parent again"), 2 * IDS_OF_A_ROUND
    )
    assert len(set(ids)) == len(ids)


def test_the_random_numbers_of_the_app_are_left_alone(traces: list[Trace]) -> None:
    """It has seeded them to get the same ones each time."""
    random.seed(42)
    expected = random.random()
    random.seed(42)
    with mlflow.start_span("outer"), mlflow.start_span("inner"):
        pass

    assert random.random() == expected
    assert len(traces) == 1
