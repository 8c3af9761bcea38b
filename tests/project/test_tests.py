"""Where tests are: behaviour in ``tests/system``, and in ``tests/unit`` the rooms of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mlflow_server
from tests.servers import ROOT

TESTS = ROOT / "tests"
CORE = ROOT / "middleware" / "mlflow_middleware"


def test_none_is_in_the_folder_of_all() -> None:
    """Named between two files of a folder below, it would take that folder's fixtures away.

    https://github.com/pytest-dev/pytest/issues/14997
    """
    assert list(TESTS.glob("test_*.py")) == []


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in (TESTS / "unit").rglob("test_*.py")}), ids=lambda path: path.name
)
def test_unit_tests_are_found_by_the_name_of_the_module(folder: Path) -> None:
    """Each folder of them has the name of a folder of the core."""
    assert (CORE / folder.relative_to(TESTS / "unit")).is_dir()


def test_a_missing_server_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test installs it in passing, which would take a minute or two of somebody's deadline."""
    monkeypatch.setenv("TEST_MLFLOW_SERVER_HOME", str(tmp_path / "none"))

    with pytest.raises(AssertionError, match=r"run `python -m tests.mlflow_server`"):
        mlflow_server.python()
    assert list(tmp_path.iterdir()) == []
