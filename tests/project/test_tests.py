"""Where tests are: behaviour in ``tests/system``, and in ``tests/unit`` the rooms of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests import mlflow_server
from tests.servers import ROOT

TESTS = ROOT / "tests"
CORE = ROOT / "middleware" / "mlflow_middleware"
INTERNAL = {"REQUEST_KEY", "SETTINGS_KEY", "start"}
"""Names of a public module that only adapters use, which its page leaves out."""


def test_no_test_is_at_the_top() -> None:
    """If one were named between two files of a folder below, pytest would lose that folder's fixtures.

    https://github.com/pytest-dev/pytest/issues/14997
    """
    assert list(TESTS.glob("test_*.py")) == []


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in (TESTS / "unit").rglob("test_*.py")}), ids=lambda path: path.name
)
def test_unit_tests_mirror_the_modules(folder: Path) -> None:
    """Each folder of unit tests has the name of a folder of the core."""
    assert (CORE / folder.relative_to(TESTS / "unit")).is_dir()


NO_PROCESS = {"chaos/lab.py", "chaos/scenarios.py", "benchmarks/instructions.py"}
"""Their processes are no apps: they compute something, and all of their output must arrive within a time limit."""


def test_one_class_starts_processes() -> None:
    """`tests.servers.Process`, which also ends them: no test has a way of its own."""
    files = {path.relative_to(TESTS).as_posix(): path for path in TESTS.rglob("*.py")}
    nodes = {name: list(ast.walk(ast.parse(path.read_text()))) for name, path in files.items()}
    starting = {
        name
        for name, found in nodes.items()
        if any(isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Popen") for node in found)
    }

    assert starting == {"servers.py", *NO_PROCESS}


def public_names() -> set[str]:
    """Return the names that the pages of the API show: those in ``__all__`` of its modules."""
    found = re.findall(r"^::: mlflow_middleware\.([\w.]+)", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    names: set[str] = set()
    for name in found:
        for path in (CORE / f"{name}.py", ROOT / "adapters" / "mlflow_middleware" / name / "__init__.py"):
            if path.exists():
                listed = re.search(r"^__all__ = (\[.*?\])", path.read_text(), re.DOTALL | re.MULTILINE)
                names |= set(ast.literal_eval(listed[1])) if listed else set()
    return names


def test_the_types_of_the_public_api_are_tested() -> None:
    """Each public name is used in ``tests/typing``, under two type checkers."""
    used = {
        name
        for file in (TESTS / "typing").glob("*.py")
        for name in re.findall(r"\w+", file.read_text(encoding="utf-8"))
    }

    assert {"find", "job_trace", "feedback_router"} <= public_names()
    assert public_names() - used - INTERNAL == set()


def test_a_missing_server_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test installs it in passing, which would take a minute or two of a test's deadline."""
    monkeypatch.setenv("TEST_MLFLOW_SERVER_HOME", str(tmp_path / "none"))

    with pytest.raises(AssertionError, match=r"run `python -m tests.mlflow_server`"):
        mlflow_server.python()
    assert list(tmp_path.iterdir()) == []
