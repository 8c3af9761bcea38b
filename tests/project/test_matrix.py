"""The page of the tested versions shows tox's reports."""

from __future__ import annotations

from tests import matrix


def test_the_page_is_written_from_the_results() -> None:
    """``python -m tests.matrix`` writes it."""
    assert matrix.PAGE.read_text() == matrix.page(matrix.results())


def test_each_environment_has_passed() -> None:
    """Those of the label ``matrix``, and no others, are recorded."""
    results = matrix.results()

    assert set(results) <= set(matrix.environments())
    assert [name for name, result in results.items() if not result["passed"]] == []
