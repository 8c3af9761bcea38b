"""The reference pages that are generated from the code: ``python -m tests.reference`` writes them."""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

from mlflow_middleware._internal.option_fields import Options
from mlflow_middleware.cli import command_line
from mlflow_middleware.settings import ENV_PREFIX
from tests import architecture, command_messages, log_messages, reference_tables, reference_tags, reference_variables
from tests.servers import ROOT

SETTINGS_PAGE = ROOT / "docs" / "settings.md"
COMMAND_LINE_PAGE = ROOT / "docs" / "command-line.md"
LOG_PAGE = ROOT / "docs" / "log-messages.md"

_COMMAND_LINE = """`mlflow-middleware COMMAND`, also as `python -m mlflow_middleware.cli COMMAND`.

It uses the environment and the settings of the app: MLflow's variables and `MLFLOW_MIDDLEWARE_<OPTION>`. In Django and
Flask, `check` is a command of the framework, too.
"""

_INTRODUCTION = f"""# Settings

Each option is a keyword of the middleware, an entry of the framework's own settings (`MLFLOW_MIDDLEWARE` in Django's
settings or in Flask's `app.config`, names in any case), or an environment variable `{ENV_PREFIX}<OPTION>`.
The first of these wins. In the environment, a list is written `a,b` and a mapping `key=value,key=value`; both may also
be JSON. An unknown or ill-typed option is an error at start-up that names it.

"""


def meanings() -> dict[str, str]:
    """Return option -> its docstring, on one line."""
    (declared,) = ast.parse(inspect.getsource(Options)).body
    assert isinstance(declared, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for statement in declared.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            found[name] = re.sub(r"\s+", " ", str(statement.value.value)).replace("``", "`").strip()
    return found


def settings_page() -> str:
    """Return the page of the settings: each option with its default and meaning."""
    said = meanings()
    rows = [
        f"| `{name}` | {_written(field.get_default())} | {_cell(said[name])}{_allowed(field.annotation)} |"
        for name, field in Options.model_fields.items()
    ]
    return _INTRODUCTION + "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def _written(default: Any) -> str:
    """Return a default in the form of an environment variable."""
    if default is None or default is PydanticUndefined or default in ((), {}):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, frozenset):
        return f"`{min(default)}-{max(default)}`"
    if isinstance(default, dict):
        return ", ".join(f"`{key}={value}`" for key, value in default.items())
    if isinstance(default, tuple):
        return ", ".join(f"`{each}`" for each in default)
    return f"`{default}`"


def _allowed(annotation: Any) -> str:
    """Return the values of an option that has few."""
    choices = [
        each for part in (annotation, *get_args(annotation)) if get_origin(part) is Literal for each in get_args(part)
    ]
    return f" Values: {', '.join(f'`{each}`' for each in choices)}." if choices else ""


def command_line_page() -> str:
    """Return the page of the command line: the output of each command's ``--help``."""
    parser = command_line()
    (commands,) = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    parts = ["# Command line\n\n" + _COMMAND_LINE]
    for name, command in commands.choices.items():
        command.formatter_class = functools.partial(command.formatter_class, width=100)
        parts.append(f"## {name}\n\n```text\n{command.format_help().strip()}\n```\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


PAGES: dict[Path, Callable[[], str]] = {
    SETTINGS_PAGE: lambda: settings_page() + reference_variables.section(),
    COMMAND_LINE_PAGE: command_line_page,
    LOG_PAGE: lambda: log_messages.page() + command_messages.section(),
    reference_tags.TAGS_PAGE: reference_tags.page,
    architecture.PICTURE: architecture.drawing,
    **{page: functools.partial(reference_tables.filled, page) for page, _ in reference_tables.places()},
}
"""Each generated page, and the function that writes its content."""


if __name__ == "__main__":
    for path, text_of in PAGES.items():
        path.write_text(text_of())
