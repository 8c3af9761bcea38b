"""The public API has tests of its types: each name on the API's page is used in ``tests/typing``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.servers import ROOT


def listed() -> Iterator[str]:
    """Yield the full names on ``docs/api.md``: its members, and all public names of modules without a list."""
    page = (ROOT / "docs" / "api.md").read_text()
    for name, members in re.findall(r"^::: ([\w.]+)(?:\n    options:\n      members: \[(.*)\])?$", page, re.MULTILINE):
        module = module_of(name)
        yield from (f"{name}.{each}" for each in (members.split(", ") if members else public(module) if module else ()))
        if module is None:
            yield name


def module_of(name: str) -> Path | None:
    """Return the file of a module; None for a class."""
    places = [ROOT / folder / name.replace(".", "/") for folder in ("middleware", "adapters")]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def public(module: Path) -> list[str]:
    """Return the names in a module's ``__all__``, or its public functions and classes."""
    body = ast.parse(module.read_text()).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return [name for name in defined if not name.startswith("_")]


def used() -> set[str]:
    """Return the full names that the tests of the types use, besides importing them."""
    found = set()
    for file in (ROOT / "tests" / "typing").glob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        origin = {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.Name | ast.Attribute):
                first, dot, rest = ast.unparse(node).partition(".")
                found.add(origin.get(first, first) + dot + rest)
    return found


def test_each_public_name_has_a_test_of_its_type() -> None:
    """A name that is added to the page, or to a listed module, needs a line in ``tests/typing``."""
    assert sorted(set(listed()) - used()) == []
