"""The layout: what each room of the code may know, and what a wheel must hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlflow_middleware.settings import Settings
from tests.servers import ROOT

CORE = ROOT / "middleware" / "mlflow_middleware"
ADAPTERS = ROOT / "adapters" / "mlflow_middleware"
SOURCES = sorted([*CORE.rglob("*.py"), *ADAPTERS.rglob("*.py")])
CORE_SOURCES = sorted(CORE.rglob("*.py"))
SEAM = CORE / "mlflow_seam"
FRAMEWORKS = {"fastapi", "starlette", "flask", "werkzeug", "django"}
TRACING = {"mlflow", "opentelemetry"}


def relative(path: Path) -> str:
    """A source file's name in a test's id."""
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Every import: the module and the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", [alias.name for alias in node.names]


def is_private(name: str) -> bool:
    """Whether any part of a dotted name starts with one underscore; ``__version__`` is public."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def private_uses(source: str) -> list[str]:
    """Where a module touches what MLflow or OpenTelemetry keep private: by import or by attribute."""
    tree = ast.parse(source)
    found = [
        f"{module}: {', '.join(names)}"
        for module, names in imported(tree)
        if module.split(".")[0] in TRACING and any(map(is_private, (module, *names)))
    ]
    ours = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(each.name.split(".")[0] in TRACING for each in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in TRACING)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and _root(node) in ours:
            found.append(ast.unparse(node))
    return found


def _root(node: ast.expr) -> str | None:
    """The name that a chain of attributes and calls starts with."""
    while isinstance(node, (ast.Attribute, ast.Call)):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else None


@pytest.mark.parametrize("folder", [CORE, ADAPTERS], ids=relative)
def test_the_namespace_has_no_init(folder: Path) -> None:
    """An ``__init__.py`` there would hide one of the two source roots in an editable install."""
    assert folder.is_dir()
    assert not (folder / "__init__.py").exists()


def test_every_package_is_typed() -> None:
    """The core's folder and each adapter hold ``py.typed``, never both at one path."""
    adapters = [folder for folder in ADAPTERS.iterdir() if (folder / "__init__.py").exists()]

    assert {folder.name for folder in adapters} == {"fastapi", "flask", "django"}
    assert [folder.name for folder in (CORE, *adapters) if not (folder / "py.typed").exists()] == []
    assert not (ADAPTERS / "py.typed").exists()


def test_no_path_exists_in_both_roots() -> None:
    """One would overwrite the other in the wheel."""
    both = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for folder in (CORE, ADAPTERS)
    ]

    assert both[0] & both[1] == set()


@pytest.mark.parametrize("path", [path for path in SOURCES if SEAM not in path.parents], ids=relative)
def test_only_the_seam_touches_what_is_private(path: Path) -> None:
    """No other module imports or reads a private name of MLflow or OpenTelemetry."""
    assert private_uses(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from mlflow.tracking import _tracking_service",
        "from mlflow.tracking._tracking_service import utils",
        "import mlflow.tracking._tracking_service",
        "import opentelemetry.sdk._logs",
        "import mlflow\nmlflow._active",
        "import mlflow as m\nm.tracing.provider._get_tracer('x')",
        "from mlflow.tracing import provider as p\np._get_tracer",
        "from mlflow import get_current_active_span\nget_current_active_span()._span",
        "def f():\n    from opentelemetry.sdk import _logs",
    ],
)
def test_a_private_use_would_be_seen(source: str) -> None:
    """The search above finds every way to write one."""
    assert private_uses(source)


def test_a_public_use_is_none() -> None:
    """Public names, dunders and our own private names are left alone."""
    source = "import mlflow\nfrom opentelemetry.trace import Link\nmlflow.__version__\nself._span\nLink(1).context"

    assert private_uses(source) == []


PACKAGES = {"google": "protobuf", "mlflow": "mlflow-tracing", "starlette": "fastapi", "click": "flask"}
"""Modules whose package has another name, or always comes with another package."""

UNDECLARED = {"pytest", "_typeshed"}
"""Whoever loads our pytest plugin has pytest; the other one is only there for type checkers."""


def package_of(module: str) -> str:
    """What has to be installed for a module; OpenTelemetry's come from several packages."""
    first, *rest = module.split(".")
    if first == "opentelemetry":
        return f"opentelemetry-{rest[0] if rest[0] in ('sdk', 'proto') else 'api'}"
    return PACKAGES.get(first, first).replace("_", "-")


def required(extra: str) -> set[str]:
    """The packages that we require, and those of one of our extras."""
    found = [Requirement(each) for each in requires("mlflow-middleware") or ()]
    return {each.name for each in found if each.marker is None or each.marker.evaluate({"extra": extra})}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_what_is_imported_is_declared(path: Path) -> None:
    """Each package is one that we require, or that the extra of its adapter does."""
    modules = {module for module, _ in imported(ast.parse(path.read_text()))}
    known = {*sys.stdlib_module_names, *UNDECLARED, "mlflow_middleware"}
    others = {name for name in modules if name.split(".")[0] not in known}
    extra = path.relative_to(ADAPTERS).parts[0] if ADAPTERS in path.parents else ""

    assert {package_of(name) for name in others} - required(extra) == set()


def test_what_is_required_is_bounded() -> None:
    """Each of our own requirements has an oldest and a newest version."""
    found = [Requirement(each) for each in requires("mlflow-middleware") or ()]
    signs = {each.name: {part.operator for part in each.specifier} for each in found if each.marker is None}

    assert {name for name, each in signs.items() if each != {">=", "<"}} == set()


@pytest.mark.parametrize("path", CORE_SOURCES, ids=relative)
def test_the_core_imports_no_framework(path: Path) -> None:
    """Nowhere, not inside a function either."""
    modules = {module.split(".")[0] for module, _ in imported(ast.parse(path.read_text()))}

    assert modules & FRAMEWORKS == set()
    assert not any(
        module.startswith(f"mlflow_middleware.{adapter.name}")
        for module, _ in imported(ast.parse(path.read_text()))
        for adapter in ADAPTERS.iterdir()
    )


def test_importing_the_core_loads_no_framework() -> None:
    """In a fresh interpreter, for all of its modules; what MLflow itself loads does not count."""
    modules = [
        ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in CORE_SOURCES
        if path.name != "__main__.py"
    ]
    program = (
        "import importlib, json, sys\n"
        "import mlflow\n"
        "before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps(sorted({FRAMEWORKS!r} & (set(sys.modules) - before))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)

    assert done.stderr == ""
    assert json.loads(done.stdout) == []


def test_the_readme_names_every_option() -> None:
    """Its settings table and the class have the same options."""
    table = (ROOT / "README.md").read_text().split("## Settings", 1)[1].split("## ", 1)[0]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(Settings.model_fields)
