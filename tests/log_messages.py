"""The lines that the library logs, collected from its source, and the meaning of each for its reader.

`MEANINGS` has an entry for each line; ``tests/project/test_log_messages.py`` fails if one is missing or left over.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeGuard

from mlflow_middleware.settings import Settings, SettingsError

SOURCES = [Path(__file__).parents[1] / folder for folder in ("middleware", "adapters")]
OPTION_MODULES = [
    f"mlflow_middleware/{name}.py"
    for name in (
        *("_internal/option_types", "_internal/networks", "_internal/exclusion", "_internal/route_options"),
        "identity_sources",
    )
]
LEVELS = ("debug", "info", "warning", "error", "exception", "critical", "log")


class Line(NamedTuple):
    """A line that the library logs.

    Attributes:
        logger: The name of its logger.
        level: Its level, or both levels.
        text: Its format.
    """

    logger: str
    level: str
    text: str


class Meaning(NamedTuple):
    """The meaning of a line, and the action to take."""

    means: str
    to_do: str


CHECK = "Run [`mlflow-middleware check`](check.md) in the same environment"

MEANINGS: dict[str, Meaning] = {
    "MLflow is not fully supported": Meaning(
        "At start-up: the installed MLflow does not fit this release. The line states what still works.",
        "Install the versions that the line gives to `pip`.",
    ),
    "tracing failed in": Meaning(
        "The middleware, or one of your callables (`identify`, `mask`, `error_when`), raised an exception, whose "
        "traceback follows. The response is not affected. `mlflow_middleware_internal_errors_total` counts all.",
        "If the traceback ends in your code, correct that; otherwise please report it.",
    ),
    "annotate() called outside a request": Meaning(
        "`annotate()` has no effect where no request is being served. The record has the stack of the call.",
        "Call it inside the request, or [carry the request](background-work.md#threads) to the other thread.",
    ),
    "earlier trace not continued": Meaning(
        "`continue_trace()` was called without a token, or with a wrong or expired one. Each reason is a warning once.",
        "Set `trace_token_secret` to the same value in all processes, and return the header `X-MLflow-Trace-Token` as "
        "it came: see [background work](background-work.md).",
    ),
    "no request is traced until": Meaning(
        "With an MLflow that is not fully supported: its experiment cannot be found yet. This is retried.",
        "Correct `MLFLOW_TRACKING_URI`, the credentials or the experiment, as the end of the line explains.",
    ),
    "span metrics are not exported": Meaning(
        "One of the variables asks for metrics of spans, and the exporter is not installed. Traces are complete.",
        "Install `opentelemetry-exporter-otlp` if you want these metrics; otherwise nothing.",
    ),
    "traces cannot be sent yet": Meaning(
        "Before the first trace: the server, the collector or the experiment cannot be used. No trace is lost.",
        f"Follow the end of the line. {CHECK} if that is not enough.",
    ),
    "traces are waiting, with retries": Meaning(
        "Sending has failed. Traces wait in memory, and in `spool_dir` if that is set; the app is not affected. The "
        "same problem is not logged again until the server has recovered.",
        f"Follow the end of the line. {CHECK} if that is not enough.",
    ),
    "traces are sent again": Meaning("The server has recovered; all that was waiting is being sent.", "Nothing."),
    "traces go to spool_dir until": Meaning(
        "A request to the server has had no answer for a while. Traces are written to disk, in case the process ends.",
        "Nothing, if `traces are sent again` follows; otherwise look at the server's load and log.",
    ),
    "traces are waiting, as the thread": Meaning(
        "The server stops all threads between requests, such as uWSGI without `--enable-threads`.",
        "Allow threads: see [where your app runs](where-your-app-runs.md).",
    ),
    "traces wait in memory instead of the spool": Meaning(
        "The directory `spool_dir` is full or cannot be written; logged once in 30 s.",
        "Make it writable, or raise `max_spool_bytes`; `mlflow-middleware replay DIR` sends what it holds.",
    ),
    "spool file left alone": Meaning(
        "A file in `spool_dir` is named like a spool file, but cannot be trusted: it is not a regular file, belongs to "
        "another user, or anybody can write to it. Or it cannot be read.",
        "If it is from your app, correct its owner or mode: it is sent then. Otherwise remove it.",
    ),
    "spool file set aside": Meaning(
        "A process was killed while it wrote the file, or the file is damaged. It is now in the folder `set-aside`.",
        "Remove it: its traces are lost.",
    ),
    "traces dropped, queue full": Meaning(
        "More traces are waiting than `max_queue_bytes` allows, so the newest are lost; logged once in 30 s.",
        "Look for an earlier `traces are waiting`, and solve that. Without one, the server is too slow: raise "
        "`max_queue_bytes`, set `spool_dir`, or lower `sample_ratio`.",
    ),
    "trace dropped, refused by the server": Meaning(
        "The server will never accept this trace: its answer is at the end of the line. Others are not affected.",
        "If the answer names a limit, raise it, or lower `max_body_bytes`; otherwise see the server's log.",
    ),
    "trace dropped, not encodable": Meaning(
        "A trace cannot be written as OTLP; the traceback follows.", "Please report it, with the traceback."
    ),
    "trace too large for the server": Meaning(
        "The server, or a proxy such as nginx, refuses such large requests (413). The trace is stored, and its spans "
        "name what was cut. Logged once.",
        "Raise the limit (nginx: `client_max_body_size`), or lower `max_body_bytes`.",
    ),
    "trace stored without some of its metadata": Meaning(
        "The server has the spans, and has refused some of the metadata and tags, as its answer explains.",
        "See the answer; most often one tag or its value is not allowed.",
    ),
    "trace stored without its attachments": Meaning(
        "The trace is complete but for its files, or the links to prompts in the registry.",
        "See the end of the line. The user may not write artifacts of the experiment, for instance.",
    ),
    "experiment cannot be used": Meaning(
        "The option `experiment`, of the app or of a route, names one that cannot be found or created. Its traces are "
        "stored in the other experiment.",
        "Correct the option, or create the experiment.",
    ),
    "each trace goes to the MLflow server": Meaning(
        "At start-up: a variable of OpenTelemetry's names a collector, so that each trace is sent there, too.",
        "Nothing, if that is intended; otherwise set one of the two variables in the line.",
    ),
    "no copies go to the OTLP collector": Meaning(
        "At start-up: OpenTelemetry's variables name a collector that cannot be used. The MLflow server gets all.",
        "Correct the variable at the end of the line.",
    ),
    "spans rejected by the OTLP collector": Meaning(
        "The collector accepted only a part of them. Each reason is logged once.",
        "Look at the collector's configuration and limits.",
    ),
    "traces at exit": Meaning(
        "The outcome of all traces of this process: the counts of `delivery.stats()`. A warning if some were dropped "
        "or are still waiting.",
        "If traces were dropped, see the reasons in brackets. `spool_dir` keeps traces that cannot be sent before the "
        "exit; `shutdown_timeout` allows more time.",
    ),
    "traces at shutdown": Meaning(
        "The same counts when the server shuts the app down, which may be before the process ends.",
        "As for `traces at exit`.",
    ),
    "feedback not stored": Meaning(
        "The MLflow server cannot be used, or `MLFLOW_TRACKING_URI` is not the address of one. The vote was answered "
        "with 503.",
        f"Follow the end of the line. {CHECK} if that is not enough.",
    ),
}
"""The start of a line -> its meaning. Search a log for these words: no two lines start alike."""

_INTRODUCTION = """# Log messages

Each line that the library logs, by logger: search for its first words, `…` stands for what differs. Configure them as
any other logger of Python's: `logging.getLogger("mlflow_middleware").setLevel("ERROR")`. Addresses are shown without
their password and query.
"""

_START_UP = """## Errors at start-up

A wrong option stops the app when it starts: with a `SettingsError`, in Django with `ImproperlyConfigured` and the
system check `mlflow_middleware.E001`. Each problem names the option, and its variable if the value came from the
environment:

```text
{example}
```

[Settings](settings.md) has the type and meaning of each option. These are the sentences about a value, besides those of
pydantic, such as `input should be a valid integer`; `…` stands for what differs:

{sentences}
"""


@functools.cache
def lines() -> list[Line]:
    """Return every line, in the order of the source.

    Raises:
        TypeError: A line is not a constant format, or is logged in a way that is not found here.
    """
    paths = sorted(path for folder in SOURCES for path in folder.rglob("*.py") if "logg" in path.read_text())
    return [line for path in paths for line in _lines_of(path)]


def meaning_of(line: Line) -> list[str]:
    """Return the keys of `MEANINGS` that a line starts with."""
    return [beginning for beginning in MEANINGS if line.text.startswith(beginning)]


def page() -> str:
    """Return the page of the log messages."""
    found = lines()
    parts = [_INTRODUCTION]
    for logger in sorted({line.logger for line in found}):
        parts += [f"## `{logger}`\n", "| level | line | meaning | what to do |\n| --- | --- | --- | --- |"]
        own = dict.fromkeys(line for line in found if line.logger == logger)
        order = list(MEANINGS)
        rows = sorted((order.index(key), line) for line in own for key in meaning_of(line))
        parts += [f"| {line.level} | `{_shown(line.text)}` | {' | '.join(MEANINGS[order[n]])} |" for n, line in rows]
        parts.append("")
    return "\n".join([*parts, _start_up()])


def _start_up() -> str:
    """Return the errors of options: two examples, and all our messages."""
    try:
        Settings.load(sampel_ratio=0.1, error_statuses="5xx")
    except SettingsError as error:
        example = str(error)
    return _START_UP.format(example=example, sentences="\n".join(f"- `{each}`" for each in option_problems()))


def option_problems() -> list[str]:
    """Return the messages for a value that an option does not accept, in alphabetical order."""
    nodes = [node for path in OPTION_MODULES for node in ast.walk(ast.parse((SOURCES[0] / path).read_text()))]
    raised = [each.args[0] for each in nodes if isinstance(each, ast.Call) and ast.unparse(each.func) == "ValueError"]
    named = [each for each in nodes if isinstance(each, ast.Constant) and str(each.value).startswith("must be")]
    texts = {text_of(each) for each in (*raised, *named, *_problems_of_all())}
    return sorted(each for each in texts if re.search("[a-z]{2}", each) and not each.endswith(" "))  # not a fragment


def _problems_of_all() -> Iterator[ast.expr]:
    """Yield the problems that a ``SettingsError`` is raised with: those of the options as a whole."""
    for path in (path for source in SOURCES for path in sorted(source.rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "SettingsError":
                listed = [each for argument in node.args if isinstance(argument, ast.List) for each in argument.elts]
                yield from (each for each in listed if isinstance(each, ast.JoinedStr | ast.Constant))


def text_of(node: ast.expr, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return a text with an ellipsis for each expression but known names, and one for all text that is appended."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp):
        return text_of(node.left, known) + "…"
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    named = [each.value if isinstance(each, ast.FormattedValue) else each for each in parts]
    return "".join(
        str(each.value) if isinstance(each, ast.Constant) else known.get(ast.unparse(each), "…") for each in named
    )


def _shown(text: str) -> str:
    """Return a format with an ellipsis for each placeholder."""
    return re.sub(r"%(?:\.\d)?[a-z]", "…", text)


def _lines_of(path: Path) -> Iterator[Line]:
    module = ast.parse(path.read_text())
    others = {each.lineno for each in ast.walk(module) if _looks_like_logging(each)}
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for call in _calls(function):
                others.discard(call.lineno)
                for text in _formats(call, path):
                    yield Line(_logger_of(module, call), _level(call, function), text)
    if others:
        raise TypeError(f"{path.name}:{min(others)}: a log line is a call of its module's `logger`, inside a function")


def _looks_like_logging(node: ast.AST) -> TypeGuard[ast.Call]:
    """Return whether something whose name has "log" in it is called as a logger is."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
        return False
    return "log" in ast.unparse(node.func.value).lower()


def _calls(function: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that log in a function, without those of functions inside it."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id.endswith(("logger", "logging")):
                yield node
        yield from _calls(node)


def _formats(call: ast.Call, path: Path) -> list[str]:
    given = call.args[1 if _name(call) == "log" else 0]
    branches = [given.body, given.orelse] if isinstance(given, ast.IfExp) else [given]
    texts = [each.value for each in branches if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if len(texts) < len(branches):
        raise TypeError(
            f"{path.name}:{call.lineno}: a log line must be a constant format, with its values as arguments"
        )
    return texts


def _name(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return call.func.attr


def _level(call: ast.Call, function: ast.AST) -> str:
    """Return the method's name; for `log`, the levels that the function names."""
    if _name(call) != "log":
        return _name(call)
    named = [each.attr for each in ast.walk(function) if isinstance(each, ast.Attribute)]
    return " or ".join(dict.fromkeys(name.lower() for name in named if name.lower() in LEVELS and name.isupper()))


def _logger_of(module: ast.Module, call: ast.Call) -> str:
    """Return the name of the module's logger."""
    assert isinstance(call.func, ast.Attribute)
    assert isinstance(call.func.value, ast.Name)
    for statement in module.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == call.func.value.id:
            assert isinstance(statement.value, ast.Call)
            return str(ast.literal_eval(statement.value.args[0]))
    raise TypeError(f"line {call.lineno}: a log line belongs to the logger of its module")
