"""Code, tests and pages are written in plain technical English: some habits that are not can be searched for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT

SUFFIXES = {".py", ".md", ".toml", ".ini", ".yml", ".yaml", ".mjs", ".html"}
FOLDERS = ("middleware", "adapters", "examples", "tests", "docs", ".github")
HABITS = {
    r"\b(is|are|was|were|be)[ ]told\b": "gets, receives, is reported",
    r"\bin[ ]the[ ]place[ ]of\b": "instead of",
    r"\b(is|are)[ ]away\b": "is unreachable",
    r"\bso[ ]many\b": "this many, a number of",
    r"\bof[ ]one'?s[ ]own\b": "of your own, of the app's own",
    r'"{3}(The[ ]same[.,:]|What[ ](is|was|has|are|were|it|they|an?|the)\b)': "a description of the thing itself",
    r"_(tol[d]|say[s]|tel[l])\b|\b(tol[d]|say[s]|tel[l])_|\bis_awa[y]\b": "reported, message, is_unreachable",
}
"""Habit -> the usual words. No pattern matches its own source."""


def texts() -> Iterator[tuple[Path, str]]:
    """Yield the lines of code, tests and pages, with their files."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    for path in [*found, *(path for path in ROOT.iterdir() if path.suffix in SUFFIXES)]:
        if "data" not in path.relative_to(ROOT).parts:
            yield from ((path, line) for line in path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("habit", HABITS)
def test_habits_of_a_translation_do_not_return(habit: str) -> None:
    """The usual words are beside each habit in `HABITS`."""
    found = [f"{path.relative_to(ROOT)}: {line.strip()}" for path, line in texts() if re.search(habit, line)]

    assert found == [], f"instead write: {HABITS[habit]}"
