"""The published files: the wheel that these tests run on, and the source distribution that builds the same one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.servers import DEADLINE, ROOT, clean_environment

PROGRAMS = Path(sys.executable).parent
INSTALLED = Path(sysconfig.get_path("purelib"))
ROOTS = ("middleware/mlflow_middleware/", "adapters/mlflow_middleware/")

EVERY_MODULE = """
import importlib, json, pkgutil, mlflow_middleware

found = [each.name for each in pkgutil.walk_packages(mlflow_middleware.__path__, "mlflow_middleware.")]
print(json.dumps({name: importlib.import_module(name).__file__ for name in found}))
"""


@dataclass(frozen=True)
class Distributions:
    """The files that `python -m build` made."""

    sdist: Path
    wheel: Path


def build(source: Path, folder: Path, *options: str) -> None:
    """Build the files that the options name from a source tree."""
    run(sys.executable, "-m", "build", *options, "--outdir", str(folder), str(source))


def run(*command: str, folder: Path | None = None) -> str:
    """Run a command outside the checkout; return its output."""
    environment = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder or INSTALLED,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> set[str]:
    """Return the files of the checkout that git tracks."""
    return set(run("git", "ls-files", folder=ROOT).splitlines())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Build both from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "--sdist", "--wheel")
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Distributions(sdist, wheel)


def test_the_wheel_is_tested_not_the_checkout() -> None:
    """Each module can be imported, and comes from the wheel."""
    files = json.loads(run(sys.executable, "-W", "error::SyntaxWarning", "-c", EVERY_MODULE))

    assert {
        "mlflow_middleware.asgi",
        "mlflow_middleware.django.asgi",
        "mlflow_middleware.pytest_plugin",
    } <= files.keys()
    assert [name for name, file in files.items() if file and not Path(file).is_relative_to(INSTALLED)] == []


def test_the_command_is_installed() -> None:
    """It lists its commands, also from another folder."""
    assert "check" in run(str(PROGRAMS / "mlflow-middleware"), "--help")


def test_the_wheel_has_all_of_the_code(built: Distributions) -> None:
    """Each file of both roots and of the examples, the licence, and nothing else."""
    sources = {
        file.removeprefix(root.removesuffix("mlflow_middleware/"))
        for root in ROOTS
        for file in tracked()
        if file.startswith(root)
    }
    examples = {f"mlflow_middleware/{file}" for file in tracked() if file.startswith("examples/")}
    with ZipFile(built.wheel) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = {name.split(".dist-info/")[1] for name in wheel.namelist() if ".dist-info/" in name}

    assert names == sources | examples
    assert metadata == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_the_source_distribution_has_only_tracked_files(built: Distributions) -> None:
    """Except for its metadata; tests and documentation are included."""
    with tarfile.open(built.sdist) as sdist:
        names = {member.name.split("/", 1)[1] for member in sdist.getmembers() if member.isfile()}

    assert names - tracked() == {"PKG-INFO"}
    assert [
        name for name in ("README.md", "LICENSE", "mkdocs.yml", "tox.ini", "tests/conftest.py") if name not in names
    ] == []


def test_the_source_distribution_builds_the_same_wheel(built: Distributions, tmp_path: Path) -> None:
    """Byte for byte, file by file."""
    with tarfile.open(built.sdist) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    build(source, tmp_path / "dist", "--wheel")
    (again,) = (tmp_path / "dist").iterdir()

    assert contents(again) == contents(built.wheel)


def contents(path: Path) -> dict[str, bytes]:
    """Return name -> content of a wheel's files."""
    with ZipFile(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


def test_a_package_index_accepts_them(built: Distributions) -> None:
    """Their metadata is valid, and the README can be rendered."""
    run(sys.executable, "-m", "twine", "check", "--strict", str(built.sdist), str(built.wheel))


def test_the_metadata_links_to_the_project() -> None:
    """An index shows the links to source, documentation and issues."""
    urls = distribution("mlflow-middleware").metadata.get_all("Project-URL") or []

    assert {url.split(",")[0] for url in urls} >= {"Changelog", "Documentation", "Issues", "Source"}


def test_the_demo_needs_nothing_else_installed(built: Distributions, tmp_path: Path) -> None:
    """The wheel and its extra bring all that it needs, including its apps."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    python = str(home / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{built.wheel}[demo]")
    (tmp_path / "empty").mkdir()

    table = json.loads(
        run(python, "-m", "mlflow_middleware.cli", "demo", "--once", "--json", folder=tmp_path / "empty")
    )

    assert table
    assert not os.listdir(tmp_path / "empty")
