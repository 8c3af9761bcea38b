"""The command line: ``mlflow-middleware``, or ``python -m mlflow_middleware.cli``.

Each subcommand is a function in `SUBCOMMANDS` that declares its arguments and its implementation. The implementation
is imported only when it runs, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def demo(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware demo``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.demo import run

        return run(once=arguments.once, as_json=arguments.json)

    summary = "Start a real MLflow server and three chat apps, send requests to them and read the traces back"
    parser = subcommands.add_parser("demo", help=summary, description=f"{summary}.")
    parser.add_argument(
        "--once", action="store_true", help="exit after that, with code 0 only if every trace is as sent"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.set_defaults(execute=execute)


def replay(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware replay DIR``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.commands.replay import replay

        return replay(arguments.directory)

    summary = "Send the traces left in a spool directory to the server in MLFLOW_TRACKING_URI"
    parser = subcommands.add_parser("replay", help=summary, description=f"{summary}.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the spool directory, as in the option spool_dir")
    parser.set_defaults(execute=execute)


def check(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware check``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.commands.check import run

        return run(as_json=arguments.json)

    summary = "Check whether traces can reach their server, and report what is wrong if they cannot"
    parser = subcommands.add_parser("check", help=summary, description=f"{summary}. Exit code 0 or 1, within 10 s.")
    parser.add_argument("--json", action="store_true", help="print the steps as JSON")
    parser.set_defaults(execute=execute)


def run(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware run [OPTIONS] COMMAND``; `commands.run` parses the arguments."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.commands.run import run

        return run(arguments.command)

    summary = "Start a server and trace the app that it serves, without changing the app"
    parser = subcommands.add_parser(
        "run",
        help=summary,
        description=f"{summary}. Each setting is an option, such as --session-id-header X-Chat-ID.",
        usage="mlflow-middleware run [--OPTION VALUE ...] [--] COMMAND [ARGUMENT ...]",
        add_help=False,
        prefix_chars="\0",  # argparse parses no option
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="the command that starts the server, such as uvicorn app:app"
    )
    parser.set_defaults(execute=execute)


def feedback(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware feedback TRACE_OR_REQUEST_ID --value VALUE``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.commands.feedback import run

        return run(
            arguments.id, arguments.value, name=arguments.name, comment=arguments.comment, user_id=arguments.user
        )

    summary = "Store feedback on a trace, on the server in MLFLOW_TRACKING_URI"
    parser = subcommands.add_parser("feedback", help=summary, description=f"{summary}.")
    parser.add_argument("id", metavar="TRACE_OR_REQUEST_ID", help="the id of a trace (tr-...) or of a request")
    parser.add_argument("--value", required=True, help="true, false, a number, or text")
    parser.add_argument("--name", default="response_is_correct", help="what is rated (default: %(default)s)")
    parser.add_argument("--comment", help="the reason, as text")
    parser.add_argument("--user", help="whose feedback it is (default: your login name)")
    parser.set_defaults(execute=execute)


def traces(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware traces``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.commands.traces import run

        given = vars(arguments)
        if arguments.by and not arguments.summary:
            parser.error("--by needs --summary")
        find = {name: given[name] for name in FIND if given[name] is not None}
        return run({**find, "tags": dict(arguments.tag)}, **{name: given[name] for name in SHOW})

    summary = "Print the stored traces that meet all conditions, newest first"
    parser = subcommands.add_parser("traces", help=summary, description=f"{summary}.")
    parser.add_argument("--request", dest="request_id", metavar="ID", help="with this request id")
    parser.add_argument("--session", dest="session_id", metavar="ID", help="of this session")
    parser.add_argument("--user", dest="user_id", metavar="ID", help="of this user")
    parser.add_argument(
        "--tag", type=_pair, action="append", default=[], metavar="K=V", help="with this tag; repeatable"
    )
    parser.add_argument("--route", help="of this route: '/chats/{chat_id}' or 'POST /chats/{chat_id}'")
    parser.add_argument("--status", type=_status, metavar="CODE", help="answered with this HTTP status")
    parser.add_argument(
        "--since", type=_moment, metavar="WHEN", help="from this time on: 1h or 2d (ago), or 2026-01-31T12:00"
    )
    parser.add_argument("--until", type=_moment, metavar="WHEN", help="before this time")
    parser.add_argument("--errors", dest="errors_only", action="store_true", help="errors only")
    parser.add_argument("--slower-than", type=_seconds, metavar="TIME", help="that took longer than this: 2s, 500ms")
    parser.add_argument(
        "--experiment", metavar="NAME", help="the name or id of an experiment (default: that of the environment)"
    )
    parser.add_argument("--limit", type=_count, help="at most this many (default: 100, with --summary 100,000)")
    parser.add_argument("--feedback", action="store_true", help="also show the ratings")
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print JSON; with --follow, one object per line"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="keep printing new traces, oldest first, until Ctrl-C")
    how.add_argument(
        "--summary", action="store_true", help="print totals instead: requests, errors, times, tokens, cost, ratings"
    )
    by = "with --summary: group by user, session, model, route (the default) or tag:NAME"
    parser.add_argument("--by", type=_grouping, metavar="WHAT", help=by)
    good = "with --summary: a numeric rating is good from N up (default: 1)"
    parser.add_argument("--good-from", type=float, default=1.0, metavar="N", help=good)
    parser.set_defaults(execute=execute)


FIND = (
    *("request_id", "session_id", "user_id", "route", "status", "since", "until"),
    *("errors_only", "slower_than", "experiment", "limit"),
)
"""Arguments of ``mlflow-middleware traces`` for `mlflow_middleware.traces.find`."""

SHOW = ("feedback", "as_json", "follow", "summary", "by", "good_from")
"""Arguments of ``mlflow-middleware traces`` that control the output."""

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _seconds(text: str) -> float:
    """Parse a duration such as ``500ms``, ``2s`` or ``1.5h`` into seconds."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|w)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 500ms, 2s, 30m, 1h, 2d or 1w")
    return float(match[1]) * UNITS[match[2]]


def _moment(text: str) -> datetime | timedelta:
    """Parse a point in time: a duration before now, or a date and time."""
    try:
        return datetime.fromisoformat(text.removesuffix("Z") + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        pass
    try:
        return timedelta(seconds=_seconds(text))
    except (argparse.ArgumentTypeError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write 30m, 1h or 2d for that long ago, or 2026-01-31T12:00"
        ) from None


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not a tag; write NAME=VALUE")
    return key, value


def _grouping(text: str) -> str:
    if not re.fullmatch(r"user|session|model|route|tag:.+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a grouping; write user, session, model, route or tag:NAME")
    return text


def _status(text: str) -> int:
    if not re.fullmatch(r"[1-5][0-9][0-9]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an HTTP status; write a number from 100 to 599")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


SUBCOMMANDS: tuple[Callable[[Subcommands], None], ...] = (check, demo, run, replay, traces, feedback)


def command_line() -> argparse.ArgumentParser:
    """Return the parser with all subcommands."""
    parser = argparse.ArgumentParser("mlflow-middleware", description="Every HTTP request becomes one MLflow trace.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('mlflow-middleware')}")
    subcommands = parser.add_subparsers(title="subcommands", required=True, metavar="SUBCOMMAND")
    for declare in SUBCOMMANDS:
        declare(subcommands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code. As usual with argparse, ``--help``, ``--version`` and usage errors raise ``SystemExit``.
    """
    arguments = command_line().parse_args(argv)
    execute: Callable[[argparse.Namespace], int] = arguments.execute
    try:
        code = execute(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`; https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
