"""``mlflow-middleware replay DIR``: send the traces that a spool directory still holds."""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.rest import ConnectionProblem, check_address
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.stats import Stats

_WIDTH = 30


def replay(directory: Path) -> int:
    """Send a spool's traces to the server in ``MLFLOW_TRACKING_URI``, with a progress bar on stderr.

    Args:
        directory: The spool. An app may use it at the same time.

    Returns:
        The exit code: 0 if nothing is left, 1 if the server did not accept every trace, 2 if the directory is missing.
    """
    if not directory.is_dir():
        print(f"mlflow-middleware replay: {directory} is not a directory", file=sys.stderr)
        return 2
    uri = mlflow_bridge.client.tracking_uri()
    try:
        check_address(uri)
    except ConnectionProblem as problem:
        print(f"mlflow-middleware replay: {problem}", file=sys.stderr)
        return 1
    spool, stats = Spool(directory, sys.maxsize), Stats()
    if next(spool.files(), None) is None:  # it may not be a spool, so set nothing aside there
        print(f"0 traces sent: {directory} has none")
        return 0
    total = spool.count()
    failure = Sender(TraceQueue(0), stats, spool).send_spool(uri, lambda done: _show(done, max(total, done)))
    print(file=sys.stderr)
    left = spool.count()
    refused = sum(stats.dropped.values())
    print(f"{stats.delivered} traces sent, {refused} refused, {left} left in {directory}")
    if failure:
        print(f"mlflow-middleware replay: {failure}", file=sys.stderr)
    return 1 if failure or left or refused else 0


def _show(done: int, total: int) -> None:
    filled = _WIDTH * done // total if total else _WIDTH
    print(f"\r[{'#' * filled}{'.' * (_WIDTH - filled)}] {done}/{total} traces", end="", file=sys.stderr, flush=True)
