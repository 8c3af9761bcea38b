"""The page that compares with other tools says what the runs have recorded, and nothing else."""

from __future__ import annotations

import pytest

from tests.comparison.page import PAGE, TOOLS, page, results
from tests.comparison.questions import QUESTIONS
from tests.comparison.tools import MODES

pytestmark = pytest.mark.once


def test_the_page_is_made_of_the_results() -> None:
    """``python -m tests.comparison --page`` writes it."""
    assert PAGE.read_text() == page(results())


@pytest.mark.parametrize("tool", TOOLS)
def test_each_question_was_asked_of_each_tool(tool: str) -> None:
    """In each way to set it up, and no other questions."""
    asked = {name for part in QUESTIONS.values() for name in part} | {"vote"}

    assert {mode: set(answers) for mode, answers in results()[tool]["answers"].items()} == dict.fromkeys(MODES, asked)


def test_no_measurement_failed() -> None:
    """Each gave a number, or what there is to tell."""
    found = [str(each) for tool in results().values() for each in tool["delivery"].values()]

    assert not [each for each in found if each.startswith("failed")]
