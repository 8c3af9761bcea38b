"""Ids of traces and spans come from the operating system: they are unique, even if the app seeds ``random``."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.servers import ROOT, clean_environment

RUN = [sys.executable, "-W", "ignore", "-m", "tests.apps.seeded"]
IDS_OF_A_ROUND = 10 * (3 + 2)
"""A request's trace and its two spans, and an explicit trace with its span."""


@pytest.mark.parametrize("mode", ["", "own-provider"])
def test_ids_are_unique_in_an_app_that_seeds_random(mode: str) -> None:
    """Over two runs, a forked child, and one that was forked in C, without Python's hooks; also with a tracer
    provider of the app's own.
    """
    lines: list[str] = []
    variables = {"MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false"} if mode else {}
    for _ in range(2):
        ended = subprocess.run(
            [*RUN, mode],
            env=clean_environment(**variables),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        lines += ended.stdout.splitlines()

    ids = [line.rpartition(" ")[2] for line in lines]
    assert Counter(line.rpartition(" ")[0] for line in lines) == dict.fromkeys(
        ("parent", "child", "child in C", "parent again"), 2 * IDS_OF_A_ROUND
    )
    assert len(set(ids)) == len(ids)


PUBLIC = """
import random
from mlflow_middleware.mlflow_bridge import public
from opentelemetry.sdk.trace import TracerProvider
public.start(bool, print, None)
for _ in range(2):
    random.seed(42)
    with TracerProvider().get_tracer("app").start_as_current_span("a") as span:
        print(span.context.trace_id, span.context.span_id)
"""


def test_ids_are_unique_with_only_public_functions_of_mlflow() -> None:
    """There, MLflow makes the spans itself."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PUBLIC],
        env=clean_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert len(set(ended.stdout.split())) == 4
