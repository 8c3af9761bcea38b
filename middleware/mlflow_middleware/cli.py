"""The command line: ``mlflow-middleware``, or ``python -m mlflow_middleware.cli``.

Each subcommand is one function in `SUBCOMMANDS`, which declares its arguments and what runs it. What it runs is
imported only then, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def demo(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware demo``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.demo import run

        return run(once=arguments.once, as_json=arguments.json)

    summary = "Start a real MLflow server and three chat apps, send them requests and read the traces back"
    parser = subcommands.add_parser("demo", help=summary, description=f"{summary}.")
    parser.add_argument("--once", action="store_true", help="end there; exit code 0 only if every trace was right")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.set_defaults(execute=execute)


def replay(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware replay DIR``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.delivery.replay import replay

        return replay(arguments.directory)

    summary = "Send what a spool directory still holds to the server that MLFLOW_TRACKING_URI names"
    parser = subcommands.add_parser("replay", help=summary, description=f"{summary}.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the directory, as spool_dir names it")
    parser.set_defaults(execute=execute)


def check(subcommands: Subcommands) -> None:
    """Declare ``mlflow-middleware check``."""

    def execute(arguments: argparse.Namespace) -> int:
        from mlflow_middleware.check import run

        return run(as_json=arguments.json)

    summary = "Say whether traces can reach their server, and what is wrong if they cannot"
    parser = subcommands.add_parser("check", help=summary, description=f"{summary}. Exit code 0 or 1, within 10 s.")
    parser.add_argument("--json", action="store_true", help="print the steps as JSON")
    parser.set_defaults(execute=execute)


SUBCOMMANDS: tuple[Callable[[Subcommands], None], ...] = (check, demo, replay)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        The exit code. As in all of argparse, ``--help``, ``--version`` and a usage error raise ``SystemExit``.
    """
    parser = argparse.ArgumentParser("mlflow-middleware", description="Every HTTP request becomes one MLflow trace.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('mlflow-middleware')}")
    subcommands = parser.add_subparsers(title="subcommands", required=True, metavar="SUBCOMMAND")
    for declare in SUBCOMMANDS:
        declare(subcommands)
    arguments = parser.parse_args(argv)
    execute: Callable[[argparse.Namespace], int] = arguments.execute
    return execute(arguments)


if __name__ == "__main__":
    sys.exit(main())
