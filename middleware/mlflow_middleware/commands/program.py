"""The program that ``mlflow-middleware run`` becomes: its file, its Python and the options of that Python."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NOT_TRACED = "the app will not be traced"

_HIDING = {
    "opentelemetry-instrument": "it keeps other tools out of the processes that it starts",
    "sanic": "it serves no ASGI app; start it by `uvicorn module:app`",
    "streamlit": "it does not serve an ASGI or WSGI app",
    "node": "it does not run Python",
}
"""Programs under which nothing is traced -> the reason."""

_LONG_SHEBANG = re.compile(r"""#!/bin/sh\n'''exec' ("[^"\n]+"|\S+)""")
"""The start of pip's scripts whose Python has a path that is too long for the first line, or contains blanks."""

_OFF = {"I": "-I", "E": "-E", "S": "-S"}
"""Options of Python that ignore ``PYTHONPATH``, or disable ``sitecustomize``."""

_PROBE = "import importlib.util as u; print(u.find_spec('mlflow_middleware.auto') is not None)"


class NotFound(Exception):
    """The program does not exist, or cannot be run.

    Attributes:
        code: The exit code of shells for this case.
    """

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class Program:
    """The program to run.

    Attributes:
        executable: The file to execute.
        command: The given command.
        python: The Python that runs it, and its options; empty if it is no Python program.
        before: The words to put before the command: a Python for a file that is not executable itself.
    """

    executable: str
    command: Sequence[str]
    python: Sequence[str] = ()
    before: Sequence[str] = ()

    def problems(self) -> Iterator[str]:
        """Yield the reasons why the app may not be traced."""
        name = Path(self.command[0]).name
        if name in _HIDING:
            yield f"{NOT_TRACED} under {name}: {_HIDING[name]}"
        elif name == "uwsgi":
            yield "under uWSGI, only Flask, Django, FastAPI and Starlette apps are traced; add the middleware to others"
        elif not self.python:
            yield f"{name} is not a Python program: only Python processes that it starts are traced"
        elif off := _disabling_option(self.python[1:]):
            yield f"{NOT_TRACED}: with {off}, Python does not load sitecustomize from PYTHONPATH, which traces the app"
        elif not _is_ours(self.python[0]) and not _has_us(self.python[0]):
            yield f"{NOT_TRACED}: {self.python[0]}, which runs {name}, has no mlflow-middleware; install it there"


def found(command: Sequence[str]) -> Program:
    """Find the program of a command like a shell, and also beside our own Python, and as a script in its folder.

    Raises:
        NotFound: The program does not exist, or cannot be run.
    """
    name, *arguments = command
    beside = shutil.which(name, path=str(Path(sys.executable).parent)) if os.path.basename(name) == name else None
    path = shutil.which(name) or beside
    if path is None and name.endswith(".py") and Path(name).is_file():
        return Program(sys.executable, command, [sys.executable], [sys.executable])
    if path is None:
        exists = os.path.basename(name) != name and Path(name).exists()
        why = "cannot be run: it is not a program" if exists else "was not found: no such program on PATH"
        raise NotFound(f"{name} {why}", 126 if exists else 127)
    if _is_python(path):
        return Program(path, command, [path, *arguments])
    return Program(path, command, _interpreter(path))


def _interpreter(path: str) -> list[str]:
    """Return the Python of a script and its options there; empty if it is not a Python script."""
    try:
        with open(path, "rb") as file:
            text = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return []
    if path.lower().endswith((".exe", ".bat", ".cmd")):
        return [sys.executable]  # pip's launchers on Windows, for the Python beside them
    if match := _LONG_SHEBANG.match(text):
        words = shlex.split(match[1])
    elif text.startswith("#!"):
        words = _words(text.splitlines()[0][2:])
    else:
        return []
    if not words or not _is_python(words[0]):
        return []
    return [shutil.which(words[0]) or words[0], *words[1:]]


def _words(line: str) -> list[str]:
    """Return the words that a script's first line runs, without ``env``."""
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S" and "=" not in word]
    return words


def _is_python(path: str) -> bool:
    return re.match(r"(python|pypy)[\w.]*$", Path(path).name, re.IGNORECASE) is not None


def _disabling_option(arguments: Sequence[str]) -> str:
    """Return the first option of Python in its arguments that prevents our loading; empty if there is none."""
    left = list(arguments)
    while left and left[0].startswith("-") and left[0] != "-":
        option = left.pop(0)
        if option.startswith("--"):
            continue
        for place, letter in enumerate(option[1:], 2):
            if letter in _OFF:
                return _OFF[letter]
            if letter in "cm":
                return ""
            if letter in "WX":
                if place == len(option):
                    left = left[1:]
                break
    return ""


def _is_ours(python: str) -> bool:
    """Return whether a Python is ours; compare folders, since other virtual environments have the same real path."""
    return Path(python).parent == Path(sys.executable).parent


def _has_us(python: str) -> bool:
    try:
        command = [python, "-c", _PROBE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return True  # another part will report why it does not run
    return "True" in done.stdout
