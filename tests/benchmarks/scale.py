"""Whether the middleware stays small and fast over many requests, over many concurrent streams, and at start-up.

    python -m tests.benchmarks.scale [--only requests,streams,start] [--requests N] [--streams N] [--chunks N]

Prints a Markdown table. Takes about ten minutes on two otherwise idle cores.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.measure import Subject, run_module
from tests.servers import ROOT, MLflowServer, clean_environment, free_port

Row = tuple[str, str, str]
"""The name of a measurement, the figure, and its target."""

WARM_UP = 2_000
"""Requests before the first measurement."""

SAMPLE_RATIO = "0.02"
"""All requests are traced in the process, but only as many traces are sent as a server on SQLite can store."""

STARTS = 5
"""Processes to take the median of."""

LATE = ("mlflow.tracing.processor.otel", "mlflow.tracking.request_header.registry")
"""Modules that MLflow imports when the first trace starts or is sent, with OpenTelemetry's metrics."""

START = """
import importlib, json, sys, time
import fastapi, mlflow, opentelemetry.sdk.trace, pydantic_settings
for name in sys.argv[1:]:
    importlib.import_module(name)
app, before, began = fastapi.FastAPI(), set(sys.modules), time.perf_counter()
from mlflow_middleware.fastapi import TraceMiddleware
imported = time.perf_counter()
TraceMiddleware(app)
built = time.perf_counter()
others = [name for name in sys.modules if name not in before and not name.startswith("mlflow_middleware")]
print(json.dumps([1000 * (imported - began), 1000 * (built - imported), others]))
"""
"""The modules named on its command line, and all imports that such apps share, come before the clock starts."""


def many_requests(server: MLflowServer, folder: Path, requests: int) -> Iterator[Row]:
    """Run one app process at full load: its memory and CPU at the start and at the end."""
    variables = {"MLFLOW_MIDDLEWARE_SAMPLE_RATIO": SAMPLE_RATIO, "MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT": "60"}
    subject = Subject("FastAPI", "ours", server, folder, **variables)
    chunk = min(10_000, requests // 2)
    memory, cpu = [], []
    try:
        subject.load(requests=WARM_UP)
        for number in range(requests // chunk):
            before, asked = subject.cpu(), subject.requests
            took, _ = subject.load(requests=chunk)
            cpu.append(1e6 * (subject.cpu() - before) / (subject.requests - asked))
            memory.append(subject.memory())
            say(f"{number + 1} x {chunk} requests: {chunk / took:.0f}/s, {cpu[-1]:.0f} µs, {memory[-1]:.1f} MiB")
        left = exit_counts(subject.exit())
        stored = subject.stored()
    finally:
        subject.stop()
    last = f"{requests // chunk * chunk:,}"
    yield f"memory after {chunk:,} requests, and after {last}", f"{memory[0]:.1f} and {memory[-1]:.1f} MiB", ""
    yield "... their ratio", f"{memory[-1] / memory[0]:.3f}", "at most 1.05"
    yield f"CPU of a request, first {chunk:,} and last {chunk:,}", f"{cpu[0]:.0f} and {cpu[-1]:.0f} µs", ""
    kept = subject.requests - left.get("sampled out", 0)
    yield f"traces kept of {subject.requests:,}, and stored", f"{kept:,} and {stored:,}", "all that are kept"
    yield "... by the app's own count", ", ".join(f"{count:,} {what}" for what, count in left.items()), "0 dropped"


def exit_counts(output: str) -> dict[str, int]:
    """Return the counts that an app logs at its end: outcome -> number of traces."""
    lines = [line for line in output.splitlines() if "at exit: " in line or "at shutdown: " in line]
    assert lines, output[-2000:]
    counts = re.findall(r"(\d+) (delivered|spooled|waiting|sampled out|dropped)", lines[-1])
    return {what: int(count) for count, what in counts}


def many_streams(server: MLflowServer, folder: Path, serving: str, streams: int, chunks: int) -> Iterator[Row]:
    """Run slow streams, all open at once: each complete, each a trace as long as the stream, with all its content."""
    subject = Subject(f"streams-{serving}", "ours", server, folder, CHUNKS=str(chunks))
    try:
        idle, before = subject.memory(), subject.cpu()
        complete, slowest = run_module("tests.benchmarks.streams", str(subject.port), str(streams), str(chunks))
        cpu, peak = subject.cpu() - before, subject.peak_memory()
        say(f"{complete} streams complete, the slowest in {slowest:.1f} s, {cpu:.1f} s of CPU")
        subject.drain(600, streams)
        traces = list(subject.traces())
    finally:
        subject.stop()
    durations = [float(trace["execution_duration"].removesuffix("s")) for trace in traces]
    sent = json.dumps([f"token {number}" for number in range(chunks)])
    whole = sum(trace["response_preview"] == sent for trace in traces)
    yield f"streams of {chunks} s complete under {serving}, of {streams:,} at once", f"{complete:,}", "all"
    yield "... their traces stored, and those with all that was sent", f"{len(traces):,} and {whole:,}", "all"
    yield "... memory at the peak, and before", f"{peak:.0f} and {idle:.0f} MiB", ""
    longest = f"{max(durations, default=0.0):.2f} s ({min(durations, default=0.0):.2f} s)"
    yield "... longest trace (shortest)", longest, f"the slowest stream, as the client saw it: {slowest:.2f} s"


def start() -> Iterator[Row]:
    """Measure import and construction, with and without the modules that MLflow imports late."""
    total, _ = started()
    ours, others = started(*LATE)
    say(f"also imported: {', '.join(others)}")
    yield "import and construction, in an app that uses MLflow", total, ""
    yield "... and has made a trace: without what MLflow then imports itself", ours, "below 50 ms"
    yield "... modules of others that still come with it", str(len(others)), ""


def started(*imported: str) -> tuple[str, list[str]]:
    """Import and construct it in fresh processes; return the milliseconds, and which other modules came with it."""
    environment = clean_environment(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once, at installation
    command = [sys.executable, "-c", START, *imported]
    outputs = [
        subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=60).stdout
        for _ in range(STARTS + 1)
    ]
    imports, builds, others = zip(*map(json.loads, outputs[1:]), strict=True)
    both = statistics.median(map(sum, zip(imports, builds, strict=True)))
    parts = f"import {statistics.median(imports):.0f} ms, construction {statistics.median(builds):.0f} ms"
    return f"{both:.0f} ms ({parts})", others[0]


def say(what: str) -> None:
    """Print the progress."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def rows(arguments: argparse.Namespace, server: MLflowServer, folder: Path) -> Iterator[Row]:
    """Run all selected measurements."""
    only = arguments.only.split(",")
    if "requests" in only:
        yield from many_requests(server, folder, arguments.requests)
    if "streams" in only:
        for serving in ("uvicorn", "hypercorn", "gunicorn"):
            yield from many_streams(server, folder, serving, arguments.streams, arguments.chunks)
    if "start" in only:
        yield from start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="requests,streams,start", metavar="PART[,PART]")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--chunks", type=int, default=20, help="of each stream, one a second")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a stream is a file, for the app and for the client
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-scale-") as name:
        server = MLflowServer(Path(name))
        server.start()
        try:
            lines = [" | ".join(("", *row, "")).strip() for row in rows(arguments, server, Path(name))]
        finally:
            server.stop()
    print("\n".join(["| what | figure | target |", "| --- | --- | --- |", *lines]))


if __name__ == "__main__":
    main()
