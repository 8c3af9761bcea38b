"""The cost of storing a trace on an MLflow server, part by part: SQLite and PostgreSQL, one, two and four workers.

    python -m tests.benchmarks.server_throughput [--stores STORE,...] [--workers N,...] [--traces N] [--rounds N]

The traces are real ones, of a chat with two child spans, and our delivery's own sinks send them over eight connections
at once, like eight app processes. Prints a Markdown table. Takes about six minutes on two cores; PostgreSQL needs
``TEST_BACKEND=postgresql``, whose MLflow server is then used for SQLite, too.

CPU is the minimum of all rounds, since other work on the machine only adds to it. A rate is the maximum of them, on a
machine that also runs the senders and the database; the load average is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import requests

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.otlp_collector import OtlpCollector
from mlflow_middleware.delivery.otlp_variables import Collector
from mlflow_middleware.delivery.replies import RetryableError
from mlflow_middleware.delivery.tracking_server import TrackingServer
from tests.benchmarks.in_process import ask, bare, environment, handed_over
from tests.benchmarks.measure import cpu_of_tree
from tests.benchmarks.spans import mlflow_children
from tests.servers import ROOT, MLflowServer, PostgreSQL

SENDERS = 8
"""Connections, each with one batch in flight."""

BATCH = 64
"""Traces in one batch, the size that delivery sends."""

LARGE_BATCH = 256
"""The batch size for a collector, which waits for more traces."""

PATIENCE = 30
"""Attempts at one batch: with several workers, SQLite may report that it is locked."""

CALM = 0.05
"""The share of a CPU below which a started server counts as idle."""


class Figures(NamedTuple):
    """The cost of storing traces, per trace.

    Attributes:
        rate: Traces a second.
        server: Milliseconds of CPU of all of the server's processes.
        server: Milliseconds of CPU of all of the server's processes.
        database: Milliseconds of CPU of PostgreSQL's.
        sender: Milliseconds of CPU of the sending process, which had encoded them before.
        disk: KiB by which the database has grown.
    retries: Batches that were sent again, in all."""

    rate: float
    server: float
    database: float
    sender: float
    disk: float
    retries: int


class Running(NamedTuple):
    """A running server, with its database if that has processes of its own."""

    server: MLflowServer
    database: PostgreSQL | None

    def cpu(self) -> tuple[float, float, float]:
        """Return the seconds of CPU so far: of the server, of its database, of this process."""
        database = cpu_of_tree(self.database.pid) if self.database else 0.0
        return cpu_of_tree(self.server.pid), database, time.process_time()

    def disk(self) -> int:
        """Return the size of the database in bytes."""
        files = self.database.data.rglob("*") if self.database else self.server.folder.glob("mlflow.db")
        return sum(file.stat().st_size for file in files if file.is_file())

    def experiment(self) -> str:
        """Return the id of a new experiment."""
        url = f"{self.server.uri}/api/2.0/mlflow/experiments/create"
        return str(requests.post(url, json={"name": f"e-{time.time_ns()}"}, timeout=60).json()["experiment_id"])

    def wait_until_calm(self) -> None:
        """Wait until all workers have started and are idle."""
        before, share = self.cpu(), 1.0
        while share > CALM:
            time.sleep(1.0)
            now = self.cpu()
            share, before = now[0] - before[0] + now[1] - before[1], now


class Sender:
    """An app process as the server sees it: its connections, and the number of batches it had to send again."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.retries = 0
        self._experiment = experiment
        self._server = TrackingServer(uri)
        headers = (("x-mlflow-experiment-id", experiment),)
        self._collector = OtlpCollector(Collector("", f"{uri}/v1/traces", headers=headers, timeout=120.0))

    def infos(self, traces: Sequence[EncodedTrace]) -> None:
        """Send the info of each."""
        while left := [trace for trace in traces if not trace.has_info]:
            self._patiently(lambda left=left: self._some_infos(left))  # type: ignore[misc]

    def _some_infos(self, left: Sequence[EncodedTrace]) -> None:
        for trace, outcome in zip(left, self._server.send_infos(self._experiment, left), strict=False):
            if outcome is not None:
                raise outcome
            trace.info_is_stored()

    def spans(self, traces: Sequence[EncodedTrace]) -> None:
        """Send the spans of all, after their infos."""
        self._patiently(lambda: self._server.send_spans(self._experiment, traces))

    def both(self, traces: Sequence[EncodedTrace]) -> None:
        """Send infos, then spans."""
        self.infos(traces)
        self.spans(traces)

    def spans_alone(self, traces: Sequence[EncodedTrace]) -> None:
        """Send the spans of all as a collector gets them, with the attributes of the trace on them."""
        self._patiently(lambda: self._collector.send_spans(self._experiment, traces))

    def bare_spans(self, traces: Sequence[EncodedTrace]) -> None:
        """Send the spans of all, without any attributes of the trace."""
        for trace in traces:
            trace.has_info = True
        self.spans(traces)

    def _patiently(self, send: Callable[[], None]) -> None:
        for attempt in range(PATIENCE):
            try:
                return send()
            except RetryableError as problem:
                print(f"again: {problem}"[:200], file=sys.stderr)
                self.retries += 1
                time.sleep(0.05 * attempt)
        raise SystemExit("the server does not take the traces")


def encoded(count: int) -> list[EncodedTrace]:
    """Return this many traces, encoded and pending."""
    from mlflow_middleware.asgi import TraceMiddleware

    with handed_over() as traces:
        ask(TraceMiddleware(bare(mlflow_children(2))), count)
    return [EncodedTrace.encode(trace) for trace in traces]


def send_all(senders: Sequence[Sender], send: str, traces: Sequence[EncodedTrace], size: int) -> None:
    """Send them in batches: each sender takes the next one when it is done with its last."""
    waiting = [traces[first : first + size] for first in range(0, len(traces), size)]
    waiting.reverse()

    def work(sender: Sender) -> None:
        while waiting:
            try:
                batch = waiting.pop()
            except IndexError:
                return
            getattr(sender, send)(batch)

    with ThreadPoolExecutor(len(senders)) as pool:
        list(pool.map(work, senders))


def take(running: Running, senders: Sequence[Sender], send: str, traces: Sequence[EncodedTrace], size: int) -> Figures:
    """Measure one part."""
    cpu, disk, began, retries = running.cpu(), running.disk(), time.monotonic(), sum(each.retries for each in senders)
    send_all(senders, send, traces, size)
    took = time.monotonic() - began
    server, database, sender = (
        1000 * (after - before) / len(traces) for before, after in zip(cpu, running.cpu(), strict=True)
    )
    grown = (running.disk() - disk) / 1024 / len(traces)
    again = sum(each.retries for each in senders) - retries
    return Figures(len(traces) / took, server, database, sender, grown, again)


PARTS = {
    "infos": ("infos", BATCH),
    "spans, after their infos": ("spans", BATCH),
    "both, as `delivery=auto` sends them": ("both", BATCH),
    "spans alone": ("spans_alone", BATCH),
    f"spans alone, {LARGE_BATCH} traces a request": ("spans_alone", LARGE_BATCH),
    "spans alone, without the trace's tags": ("bare_spans", BATCH),
}
"""Part -> the function that sends it, and the traces of a batch."""


def round_of(running: Running, count: int) -> dict[str, Figures]:
    """Send each part once."""
    experiment = running.experiment()
    senders = [Sender(running.server.uri, experiment) for _ in range(SENDERS)]
    send_all(senders, "both", encoded(2 * SENDERS), 2)  # connections, and imports by the workers' first requests
    found, traces = {}, []
    for part, (send, size) in PARTS.items():
        if send != "spans":
            traces = encoded(count)
        found[part] = take(running, senders, send, traces, size)
    return found


def best(rounds: Sequence[Figures]) -> Figures:
    """Return the highest rate and the lowest of all other figures."""
    least = Figures(*map(min, zip(*rounds, strict=True)))
    return least._replace(rate=max(each.rate for each in rounds), retries=sum(each.retries for each in rounds))


def measure(store: str, workers: int, count: int, rounds: int) -> dict[str, Figures]:
    """Measure each part on one server, which ends afterwards."""
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-throughput-") as name:
        database = PostgreSQL() if store == "postgresql" else None
        running = Running(MLflowServer(Path(name), database=database, workers=workers), database)
        running.server.start()
        try:
            running.wait_until_calm()
            found = [round_of(running, count) for _ in range(rounds)]
        finally:
            running.server.stop()
    return {part: best([each[part] for each in found]) for part in PARTS}


def rows(store: str, workers: int, found: dict[str, Figures]) -> Iterator[str]:
    """Format a row of a table."""
    for part, figures in found.items():
        database = f"{figures.database:.1f}" if figures.database else ""
        cells = [
            f"{store}, {workers}",
            part,
            f"{figures.rate:.0f}",
            f"{figures.server:.1f}",
            database,
            f"{figures.sender:.2f}",
            f"{figures.disk:.1f}",
            str(figures.retries or ""),
        ]
        yield f"| {' | '.join(cells)} |"


HEAD = [
    "| store, workers | part | traces a second | server, ms of CPU a trace | PostgreSQL, ms | sender, ms | KiB a trace "
    "on disk | batches sent again |",
    "| --- | --- | --- | --- | --- | --- | --- | --- |",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", default="sqlite,postgresql")
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--traces", type=int, default=384, help="of each part and round")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.update(environment(ROOT))
    sample = encoded(1)[0]
    print(f"a trace: {len(sample.otlp)} bytes of spans, {len(sample.info)} of info; load {os.getloadavg()[0]:.1f}\n")
    print("\n".join(HEAD), flush=True)
    for store in arguments.stores.split(","):
        for workers in map(int, arguments.workers.split(",")):
            found = measure(store, workers, arguments.traces, arguments.rounds)
            print("\n".join(rows(store, workers, found)), flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
