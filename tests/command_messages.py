"""The lines of the commands besides their results, and the reasons why something cannot be sent, from the source.

``docs/log-messages.md`` shows it.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from mlflow_middleware.commands import check, program
from tests import log_messages
from tests.log_messages import Meaning, text_of
from tests.servers import ROOT

CORE = ROOT / "middleware" / "mlflow_middleware"
CLI = CORE / "cli.py"
RUN = [CORE / "commands" / "run.py", CORE / "commands" / "program.py", *sorted((CORE / "auto").rglob("*.py"))]
CHECK = sorted((CORE / "commands").glob("check*.py"))
OTHERS = {
    "replay": [CORE / "commands" / "replay.py"],
    "traces": [CORE / "commands" / "traces.py", CORE / "commands" / "traces_summary.py"],
    "feedback": [CORE / "commands" / "feedback.py", CORE / "feedback" / "store.py", CORE / "feedback" / "limits.py"],
    "demo": [CORE / "demo" / "__init__.py", CORE / "demo" / "processes.py"],
}
"""Command -> the modules whose sentences are listed without a meaning, as each includes the remedy."""

SENDING = [
    CORE / "delivery" / f"{name}.py"
    for name in (
        *("rest", "experiment", "replies", "tracking_server", "artifact_server", "local_store"),
        *("otlp_variables", "otlp_collector", "otlp_grpc", "spool", "spool_files", "spool_format"),
    )
]
"""The modules that describe why something could not be sent, stored or found."""

CAUSES = ("BadToken", "ConnectionError", "ConnectionProblem", "NoClient", "TimeoutError", "UnacceptableAnswer")
"""The errors of other modules that become a reason."""

SEARCHING = [CORE / "traces.py", CORE / "summaries.py", CORE / "delivery" / "stored.py"]
"""The modules that refuse a value that cannot be searched for."""

TO_THE_CALLER = {
    "traces cannot be captured: …",
    "job_trace cannot decorate …, which is a generator: use `with job_trace(...)`",
    "route must be text, not …",
    "headers must be a mapping or the name of an argument, not …",
}
"""Errors of a wrong call, which the traceback shows."""

INTERNAL = {
    *("there may be a secret", "the pieces of an answer", "too many bytes", "too many objects"),
    *("to be written anew", "more than one value", "nested too deeply"),
    *("no HTTP/1.1 answer", "an answer without Content-Length"),
    *("a trial trace was not exported", "a trial trace was not sampled", "a trial span was not current"),
    *("MLflow builds its span processors in another way", "MLflow's current span is not kept in a context variable"),
}
"""Errors that the library handles itself; those of the trial are parts of `MLflow is not fully supported`."""

_NOT_STARTED = "The app is not started: exit code {}."
_WITHOUT = "The app is started, without traces."

RUN_MEANS: dict[str, Meaning] = {
    "option … needs a value": Meaning(_NOT_STARTED.format(2), "Write `--option value` or `--option=value`."),
    "the command is missing": Meaning(_NOT_STARTED.format(2), "Write the server's command after the options."),
    "… was not found: no such program on PATH": Meaning(_NOT_STARTED.format(127), "Install it, or correct its name."),
    "… cannot be run: it is not a program": Meaning(
        _NOT_STARTED.format(126), "Make the file executable, or put its program before it."
    ),
    "… cannot be run: …": Meaning(_NOT_STARTED.format(126), "See the system's reason at the end of the line."),
    "the app will not be traced under …: …": Meaning(
        f"{_WITHOUT} The programs are {', '.join(f'`{name}`' for name in program._HIDING)}.",
        "See the reason at the end of the line; or [put the middleware into the app](frameworks.md).",
    ),
    "under uWSGI, only": Meaning(
        "Other ASGI and WSGI apps are started without traces.", "Put the middleware into the app."
    ),
    "… is not a Python program": Meaning(
        "It may be a script (`sh start.sh`) or a tool (`uv run uvicorn`).",
        "Nothing, if it starts the app in a Python process.",
    ),
    "the app will not be traced: with …, Python": Meaning(
        f"{_WITHOUT} `-I`, `-E` and `-S`, also in a script's first line, hide `PYTHONPATH` or `sitecustomize`.",
        "Leave out the option, or put the middleware into the app.",
    ),
    "the app will not be traced: …, which runs": Meaning(
        f"{_WITHOUT} The program belongs to another Python.", "Install `mlflow-middleware` in that environment."
    ),
    "the app may not be traced": Meaning(
        "A server or framework of this version cannot be patched.", "Put the middleware into the app; please report it."
    ),
    "the app is not traced: …: …": Meaning(
        "The middleware cannot be imported in the app's process.", "Correct what the end of the line names."
    ),
    "the app is not traced: … is": Meaning(
        "The server has loaded an app of another kind: granian's RSGI, ASGI 2, or none.",
        "Give the server an ASGI 3 or WSGI app.",
    ),
    "the app has the middleware already": Meaning(
        "The app has a line of its own. The options before the command have no effect on it.",
        "Nothing; or start the app without `mlflow-middleware run`.",
    ),
}
"""How a line of ``mlflow-middleware run`` begins -> its meaning."""

ENDS = {"was not found: no such program on PATH", "cannot be run: it is not a program"}
"""Ends of a line that begins with the program."""

NO_LINES = {
    "the app will not be traced",  # a part of lines
    *program._HIDING.values(),
    "an RSGI app",
    "an ASGI 2 app",
    "an unknown kind of app",
    "an ASGI 2 app or none",
    "an app without a signature",
    "mlflow-middleware check",  # a name
    "The MLflow server",
    "The chat on …",
    "not yet valid",  # in the answers of others
    "QueuePool limit",
    "Failed to log OpenTelemetry spans",
    "the system's settings",
}
"""Sentences in the code that are no message by themselves."""

STEP_FUNCTIONS = {function.__name__ for _, _, function in check.STEPS} | {"walk", "run", "line"}
"""Functions of the check that no step calls."""

_RUN = """
## `mlflow-middleware run`

On stderr, each after `mlflow-middleware run:`. A wrong option of the middleware is reported as
[at start-up](#errors-at-start-up), with the exit code 2.

| line | meaning | what to do |
| --- | --- | --- |
"""
_CHECK = """
## `mlflow-middleware check`

The reports of [each step](check.md), in whole or in parts. Some steps also give [reasons](#reasons).

| step | line |
| --- | --- |
"""
_OTHERS = """
## Other commands

| command | line |
| --- | --- |
"""
_REASONS = """
## Reasons

Log lines, commands and the answers to votes end with one of these if something cannot be sent, stored or found:

"""


def sentences(module: ast.Module, part: ast.AST | None = None) -> Iterator[str]:
    """Yield the texts of a module, or of a part of it, with three words or more, but for docstrings, usage and code."""
    nodes, constants = list(ast.walk(part or module)), _constants(module)
    apart = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
    apart |= {id(piece) for node in nodes if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in nodes:
        is_text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        if is_text and id(node) not in apart:
            text = " ".join(text_of(cast("ast.expr", node), constants).split())
            if is_message(text):
                yield text


def _constants(module: ast.Module) -> dict[str, str]:
    """Return the texts that a module's names stand for."""
    pairs = [(node.targets[0], node.value) for node in module.body if isinstance(node, ast.Assign)]
    texts = [(name, each.value) for name, each in pairs if isinstance(each, ast.Constant)]
    return {ast.unparse(name): text for name, text in texts if isinstance(text, str)}


def is_message(text: str) -> bool:
    """Return whether a text is one; a frame such as ``mlflow-middleware run: …`` and a request to copy are none."""
    if text in NO_LINES or re.search(r"usage:|^import |^#!|^mlflow-middleware \w+: …$|curl -i", text):
        return False
    return " " in text and len(re.findall(r"[A-Za-z']{2,}", text)) >= 3


def parsed(path: Path) -> ast.Module:
    """Return a module's tree."""
    return ast.parse(path.read_text())


# --- run ---


def run_lines() -> list[str]:
    """Return the lines of ``run``."""
    found = dict.fromkeys(text for path in RUN for text in sentences(parsed(path)))
    return [f"… {text}" if text in ENDS else text for text in found]


def meanings_of(line: str) -> list[str]:
    """Return the keys of `RUN_MEANS` that a line begins with, the longest only."""
    found = [key for key in RUN_MEANS if line.startswith(key)]
    return [key for key in found if len(key) == max(map(len, found))]


def _run() -> str:
    order = list(RUN_MEANS)
    rows = sorted((order.index(key), line) for line in run_lines() for key in meanings_of(line))
    return "\n".join(f"| {_code(line)} | {' | '.join(RUN_MEANS[order[place]])} |" for place, line in rows)


# --- check ---


def check_lines() -> dict[str, list[str]]:
    """Return each sentence of the check, with the steps that may report it; any step for those of the frame."""
    modules = [parsed(path) for path in CHECK]
    functions = {
        node.name: (module, node)
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef)
    }
    found: dict[str, list[str]] = {}
    for step, _, function in check.STEPS:
        for name in _reached(function.__name__, functions):
            for text in sentences(*functions[name]):
                if step not in found.setdefault(text, []):
                    found[text].append(step)
    for text in dict.fromkeys(text for module in modules for text in sentences(module)):
        found.setdefault(text, ["any"])
    return found


def _reached(first: str, functions: Mapping[str, tuple[ast.Module, ast.FunctionDef]]) -> list[str]:
    """Return a function, and those of the check's modules that it names, directly or by others."""
    reached, left = [first], [first]
    while left:
        _, node = functions[left.pop()]
        named = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        named |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        new = sorted(named & functions.keys() - set(reached) - STEP_FUNCTIONS)
        reached, left = reached + new, left + new
    return reached


def _check() -> str:
    return "\n".join(f"| {', '.join(steps)} | {_code(text)} |" for text, steps in check_lines().items())


# --- others ---


def raised(path: Path, *names: str) -> Iterator[str]:
    """Yield the texts that a module hands to functions or exceptions of these names."""
    calls = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    texts = [each for call in calls if ast.unparse(call.func).split(".", 1)[-1] in names for each in call.args]
    yield from (text for text in map(text_of, texts) if is_message(text))


def raised_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the messages of all errors that a module raises, without and with the texts that its names stand for."""
    module = parsed(path)
    errors = [node.exc for node in ast.walk(module) if isinstance(node, ast.Raise)]
    given = [each for error in errors if isinstance(error, ast.Call) for each in error.args]
    for part in (part for each in given for part in getattr(each, "elts", [each])):
        if is_message(text_of(part)):
            yield text_of(part), text_of(part, _constants(module))


def other_lines() -> list[tuple[str, str]]:
    """Return the lines of the other commands, each with its command."""
    rows = [(command, text) for command, paths in OTHERS.items() for path in paths for text in sentences(parsed(path))]
    rows += [("feedback", text) for text in raised(CORE / "feedback" / "__init__.py", "FeedbackError")]
    rows += [("feedback", text) for text in raised(CORE / "feedback" / "body.py", "ValueError")]
    rows += [("traces", text) for text in raised(CLI, "ArgumentTypeError", "error")]
    rows += [("traces", text) for path in SEARCHING for text in raised(path, "ValueError")]
    return sorted(
        {row for row in rows if row[1] not in log_lines()}, key=lambda row: (list(OTHERS).index(row[0]), row[1])
    )


@functools.cache
def log_lines() -> set[str]:
    """Return the lines of the log, which have a section of their own."""
    return {line.text for line in log_messages.lines()}


def reasons() -> list[str]:
    """Return the sentences of the modules that send, but for whole log lines."""
    found = {text for path in SENDING for text in sentences(parsed(path))} - log_lines()
    found |= {text for path in sorted(CORE.rglob("*.py")) for text in raised(path, *CAUSES)}
    return sorted(found, key=lambda text: text.strip("…: ;"))


def _code(text: str) -> str:
    """Format a text as code, which may have backticks itself."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def section() -> str:
    """The sections of the commands."""
    others = "\n".join(f"| `{command}` | {_code(text)} |" for command, text in other_lines())
    listed = "\n".join(f"- {_code(text)}" for text in reasons())
    return f"{_RUN}{_run()}\n{_CHECK}{_check()}\n{_OTHERS}{others}\n{_REASONS}{listed}\n"
