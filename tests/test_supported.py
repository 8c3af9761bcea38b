"""The versions of MLflow that are said to be supported."""

from __future__ import annotations

import re

import pytest

from mlflow_middleware import check, supported
from tests.servers import ROOT

pytestmark = pytest.mark.once


def test_all_say_the_same() -> None:
    """The package's requirement, the README and the tox environment of the oldest name the range of the code."""
    floor = ".".join(map(str, supported.FLOOR))
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())

    assert f'"mlflow-tracing>={floor},<4"' in (ROOT / "pyproject.toml").read_text()
    assert f"mlflow-tracing {supported.in_words()}," in readme
    assert f"mlflow-tracing=={floor}.*" in (ROOT / "tox.ini").read_text()


@pytest.mark.parametrize(
    ("version", "too_old", "untried"),
    [
        ("3.10.1", True, False),
        ("3.11.0", False, False),
        ("3.11.0rc1", False, False),
        ("3.18.3", False, False),
        ("3.19.0", False, True),
        ("4.0", False, True),
        ("2.22.5", True, False),
        ("not installed", False, False),
    ],
)
def test_a_version_is_placed(version: str, too_old: bool, untried: bool) -> None:
    """Below the range, in it or above; what cannot be read is in it."""
    assert (supported.is_too_old(version), supported.is_untried(version)) == (too_old, untried)


@pytest.mark.parametrize(("found", "says"), [("mlflow-tracing 3.10.1", "is too old"), ("3.20.0", "does not know")])
def test_the_check_names_the_range(found: str, says: str) -> None:
    """For a client that is too old and for one that has changed: which was found, which are supported, and the cure."""
    told = check._unknown_client(found)

    assert all(word in told for word in (found, says, supported.in_words(), supported.REQUIREMENT))
