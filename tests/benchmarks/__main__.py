"""What tracing costs an app: untraced, by hand as in MLflow's documentation, by OpenTelemetry, and by this middleware.

    python -m tests.benchmarks [--frameworks FastAPI,Flask,Django] [--ways NAME,...] [--kinds none,two] [--rounds N]
                               [--output FOLDER]

Each way has an app process and an experiment of its own on one real MLflow server on SQLite; in each round all of
them run in short turns. The kind is the number of child spans that a request opens. Nothing is asserted: times differ
between machines, so look at the ratios. If a target is missed, the last lines report it. Results are written to the
folder after each measurement, so that an interrupted run is not lost. Takes about 40 minutes on two otherwise idle
cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measure import UNTRACED, WAYS, Case, cases, caught_up, measure
from tests.benchmarks.plot import Series, plot
from tests.benchmarks.spans import KINDS
from tests.benchmarks.tables import KIND_NAMES, NAMES, Results, tables, verdicts
from tests.servers import ROOT, MLflowServer

BURSTS = ("untraced", "mlflow", "nowhere", "otel", "ours")
"""The ways whose cost and stored share under full load are measured."""


class Report:
    """The results so far, and the progress.

    Args:
        steps: The number of measurements.
        folder: Where they are written.
    """

    def __init__(self, steps: int, folder: Path) -> None:
        self.results: dict[str, Results] = {}
        self.failed: list[str] = []
        self._folder = folder
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()

    def step(self, what: str, figures: object) -> None:
        """Record one result: write all of them, and print the expected end to stderr."""
        self._done += 1
        left = (time.monotonic() - self._began) / self._done * (self._steps - self._done) / 60
        count = f"{self._done} of {self._steps}, about {left:.0f} min left"
        print(f"[{count}] {what}: {figures}", file=sys.stderr, flush=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "benchmark.md").write_text(self.text())
        (self._folder / "benchmark.svg").write_text(plot(dict(self._series())))

    def failure(self, what: str, error: Exception) -> None:
        """Report a failed measurement; the others are still worth having."""
        self.failed.append(f"{what} FAILED: {error}")
        self.step(what, error)

    def text(self) -> str:
        """Return all tables, then the targets."""
        lines = [line for framework, results in self.results.items() for line in tables(framework, results)]
        packages = ("mlflow-tracing", "opentelemetry-sdk", "fastapi", "flask", "django")
        versions = ", ".join(f"{name} {version(name)}" for name in packages)
        lines += [f"Python {platform.python_version()}, {versions}, {os.cpu_count()} CPUs.", ""]
        for framework, results in self.results.items():
            lines += verdicts(framework, results)
        return "\n".join([*lines, *self.failed, ""])

    def _series(self) -> list[tuple[str, Series]]:
        found: list[tuple[str, Series]] = []
        for framework, results in self.results.items():
            for kind in dict.fromkeys(case.kind for case in results.rounds):
                traced = [case for case in results.rounds if case.kind == kind and case != UNTRACED]
                series = {
                    NAMES[case.way].replace("`", ""): (results.kept(case), results.added(case)) for case in traced
                }
                complete = {name: values for name, values in series.items() if values[0]}
                found.append((f"{framework}, {KIND_NAMES[kind]}", complete))
        return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", default="FastAPI,Flask,Django", metavar="NAME[,NAME]")
    parser.add_argument("--ways", default=",".join(WAYS), metavar="NAME[,NAME]")
    parser.add_argument("--kinds", default="none,two", metavar="KIND[,KIND]", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--rate", type=float, default=200.0, help="requests a second where latency and CPU are measured"
    )
    parser.add_argument("--slices", type=int, default=2, help="turns of each way in a round")
    parser.add_argument("--gentle", type=float, default=1.0, help="seconds of a turn, at that rate")
    parser.add_argument("--saturated", type=float, default=2.0, help="seconds at full load")
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / ".tox" / "benchmark",
        metavar="FOLDER",
        help="where benchmark.md and benchmark.svg go",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left running
    frameworks = arguments.frameworks.split(",")
    chosen = cases(arguments.ways.split(","), arguments.kinds.split(","))
    bursts = [case for case in chosen if case.way in BURSTS]
    report = Report(len(frameworks) * (arguments.rounds + len(bursts)), arguments.output)
    for framework in frameworks:
        run(framework, chosen, bursts, arguments, report)
    print(report.text())
    sys.exit(1 if report.failed else 0)


def run(framework: str, chosen: list[Case], bursts: list[Case], arguments: argparse.Namespace, report: Report) -> None:
    """Run all rounds of one framework on a server of its own; then each way at full load, to the last stored trace."""
    results = report.results[framework] = Results()
    how = {name: getattr(arguments, name) for name in ("rate", "slices", "gentle", "saturated")}
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-benchmark-") as name:
        folder = Path(name)
        server = MLflowServer(folder)
        server.start()
        try:
            for number in range(arguments.rounds):
                what = f"{framework}, round {number + 1}"
                try:
                    found = measure(framework, chosen, server, folder, number=number, **how)
                    results.add(found)
                    report.step(what, found)
                except Exception as error:
                    report.failure(what, error)
            for case in bursts:
                what = f"{framework}, saturated and caught up, {NAMES[case.way]}, {KIND_NAMES[case.kind]}"
                try:
                    results.bursts[case] = caught_up(framework, case, server, folder, saturated=arguments.saturated)
                    report.step(what, results.bursts[case])
                except Exception as error:
                    report.failure(what, error)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
