"""The page that compares with other tools has the recorded results of the runs, and nothing else."""

from __future__ import annotations

import pytest

from tests.comparison.page import PAGE, TOOLS, page, results
from tests.comparison.questions import QUESTIONS
from tests.comparison.tools import MODES

pytestmark = pytest.mark.once


def test_the_page_is_written_from_the_results() -> None:
    """``python -m tests.comparison --page`` writes it."""
    assert PAGE.read_text() == page(results())


@pytest.mark.parametrize("tool", TOOLS)
def test_each_question_has_an_answer_for_each_tool(tool: str) -> None:
    """Also for each way to set it up; and there are no other questions."""
    asked = {name for part in QUESTIONS.values() for name in part} | {"vote"}

    assert {mode: set(answers) for mode, answers in results()[tool]["answers"].items()} == dict.fromkeys(MODES, asked)


def test_no_measurement_failed() -> None:
    """Each gave a number or a finding."""
    found = [str(each) for tool in results().values() for each in tool["delivery"].values()]

    assert not [each for each in found if each.startswith("failed")]
