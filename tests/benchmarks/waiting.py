"""How many traces fit in an app process, and in its spool, while the server is unreachable.

    python -m tests.benchmarks.waiting

The traces are those of a chat with two child spans, about 500 a second. Prints the bytes that one takes in the queue
and in the spool, and how many fit in the default sizes. Takes about a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.in_process import ask, bare, environment
from tests.benchmarks.spans import mlflow_children
from tests.servers import ROOT, eventually

QUEUE = 8 * 1024 * 1024
"""Size of the queue, in bytes, which is filled."""

SPOOLED = 2_000
"""Traces in the measured spool."""

CHUNK = 50
"""Requests at a time; in between, the sender compresses pending traces."""


def fill_queue() -> float:
    """Return the bytes of a full queue for each of its traces."""
    from mlflow_middleware import delivery
    from mlflow_middleware.asgi import TraceMiddleware

    app = TraceMiddleware(bare(mlflow_children(2)), max_queue_bytes=QUEUE, shutdown_timeout=0)
    while not delivery.stats().dropped:
        ask(app, CHUNK)
        time.sleep(CHUNK / 1000)
    return QUEUE / delivery.stats().waiting


def fill_spool() -> float:
    """Return the bytes of the spool's files for each of its traces."""
    from mlflow_middleware import delivery
    from mlflow_middleware.asgi import TraceMiddleware

    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-waiting-") as folder:
        app = TraceMiddleware(bare(mlflow_children(2)), spool_dir=folder)
        for _ in range(SPOOLED // CHUNK):
            ask(app, CHUNK)
            time.sleep(CHUNK / 1000)
        eventually(lambda: delivery.stats().spooled == SPOOLED, "all traces in the spool")
        return sum(file.stat().st_size for file in Path(folder).rglob("*.otlp")) / SPOOLED


PARTS = {"queue": fill_queue, "spool": fill_spool}
"""Run each measurement in a process of its own, since a process has one delivery."""

DEFAULTS = {"queue": 64 * 1024**2, "spool": 1024**3}
"""The defaults of ``max_queue_bytes`` and ``max_spool_bytes``."""


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(PARTS[sys.argv[1]]()))
        return
    print("| where | bytes of a trace | traces in the default size |\n| --- | --- | --- |")
    for part in PARTS:
        command = [sys.executable, "-m", "tests.benchmarks.waiting", part]
        size = json.loads(subprocess.check_output(command, env=environment(ROOT), cwd=ROOT, timeout=300))
        print(f"| {part} | {size:,.0f} | {DEFAULTS[part] / size:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
