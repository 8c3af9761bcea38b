"""``mlflow-middleware run``: start a server and trace its app, which has no line of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlflow_middleware import auto
from mlflow_middleware._internal.option_problems import ENV_PREFIX
from mlflow_middleware.commands.program import NotFound, Program, found
from mlflow_middleware.settings import Settings, SettingsError

SITE = Path(auto.__file__).with_name("site")
"""The folder of the ``sitecustomize`` that each Python process of the app finds first."""

OF_THE_APP = ("identify", "mask", "error_when")
"""Options that may refer to the app's code, which is not imported here; the app's start reports errors in them."""

USAGE = "usage: mlflow-middleware run [--OPTION VALUE ...] [--] COMMAND [ARGUMENT ...]"

HELP = f"""{USAGE}

Start a server, such as uvicorn, gunicorn, hypercorn, granian, waitress-serve, daphne, `fastapi run`, `flask run` or
`manage.py runserver`, and trace the app that it serves, without changing the app.

    mlflow-middleware run uvicorn app:app
    mlflow-middleware run --session-id-header X-Chat-ID -- gunicorn --workers 4 app:app

Each setting is an option; values are written as in environment variables:
"""


class UsageError(Exception):
    """The command line is wrong."""


def run(arguments: Sequence[str]) -> int:
    """Become the server; return only if that fails.

    Args:
        arguments: Our options, and the command.

    Returns:
        The exit code, as in a shell: 127 for a missing program and 126 for one that cannot be run.
    """
    if list(arguments[:1]) in (["-h"], ["--help"]):
        print(HELP + "".join(f"    --{name.replace('_', '-')}\n" for name in Settings.model_fields), end="")
        return 0
    try:
        options, command = split(arguments)
        check(options)
        program = found(command)
    except (UsageError, SettingsError) as error:
        return _fail(f"{error}\n{USAGE}", 2)
    except NotFound as error:
        return _fail(str(error), error.code)
    for line in program.problems():
        print(f"mlflow-middleware run: {line}", file=sys.stderr)
    return _become(program, environment(options))


def split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Separate our options, by their names in the settings, from the command.

    Raises:
        UsageError: An option has no value, or there is no command.
    """
    options: dict[str, str] = {}
    left = list(arguments)
    while left and left[0].startswith("-"):
        first = left.pop(0)
        if first == "--":
            break
        name, separator, value = first.removeprefix("--").partition("=")
        if not separator and not left:
            raise UsageError(f"option {first!r} needs a value")
        options[name.replace("-", "_").lower()] = value if separator else left.pop(0)
    if not left:
        raise UsageError("the command is missing")
    return options, left


def check(options: dict[str, str]) -> None:
    """Check our options, and those in the environment.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    left_out = {name: os.environ.pop(name) for name in map(variable, OF_THE_APP) if name in os.environ}
    try:
        Settings.load(**{name: value for name, value in options.items() if name not in OF_THE_APP})
    finally:
        os.environ.update(left_out)


def variable(option: str) -> str:
    """Return the environment variable of an option."""
    return ENV_PREFIX + option.upper()


def environment(options: dict[str, str]) -> dict[str, str]:
    """Return the environment of the command."""
    given = os.environ.get("PYTHONPATH")
    paths = [str(SITE), *(given.split(os.pathsep) if given else ())]  # an empty one among others: the current folder
    ours = {variable(name): value for name, value in options.items()}
    return {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _become(program: Program, variables: dict[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    command = [*program.before, *program.command]
    try:
        if os.name == "nt":  # on Windows, `exec` returns to the shell at once while the server keeps running
            return subprocess.run(command, env=variables, check=False).returncode  # noqa: S603
        os.execve(program.executable, command, variables)  # noqa: S606 - no shell, and the caller's own words
    except OSError as error:
        return _fail(f"{program.executable} cannot be run: {error.strerror}", 126)


def _fail(line: str, code: int) -> int:
    print(f"mlflow-middleware run: {line}", file=sys.stderr)
    return code
