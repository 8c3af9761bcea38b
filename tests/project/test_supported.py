"""The supported versions of MLflow."""

from __future__ import annotations

import re

import pytest

from mlflow_middleware._internal import supported
from mlflow_middleware.mlflow_bridge.loading import Found, Level
from tests.servers import ROOT

pytestmark = pytest.mark.once


def test_all_name_the_same_versions() -> None:
    """The package's requirement, the README and tox's environment of the oldest version agree with the code's range."""
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
def test_a_version_is_compared_with_the_range(version: str, too_old: bool, untried: bool) -> None:
    """It is below the range, in it or above; an unreadable one counts as in it."""
    assert (supported.is_too_old(version), supported.is_untried(version)) == (too_old, untried)


@pytest.mark.parametrize(
    ("level", "version", "words_of_level"),
    [
        (Level.EVERYTHING, "3.10.1", "is older than"),
        (Level.PUBLIC, "3.20.0", "its own exporter stays in place"),
        (Level.NOTHING, "3.20.0", "are not traced at all"),
    ],
)
def test_the_line_names_the_range(level: Level, version: str, words_of_level: str) -> None:
    """For a client that is too old or has changed, it has the found version, the supported ones, and the remedy."""
    line = Found(level, "mlflow-tracing", version, "missing: x").summary

    words = (f"mlflow-tracing {version}", words_of_level, supported.in_words(), supported.requirement())
    assert [word for word in words if word not in line] == []
    assert "\n" not in line


def test_a_fitting_client_needs_no_line() -> None:
    """Also one that is newer than any tested one."""
    assert Found(Level.EVERYTHING, "mlflow-tracing", "3.20.0", "").summary == ""
