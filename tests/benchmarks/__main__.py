"""What tracing costs an app, side by side: untraced, by hand as MLflow's documentation has it, by OpenTelemetry, by us.

    python -m tests.benchmarks [--frameworks FastAPI,Flask,Django] [--ways NAME,...] [--rounds N] [--output FOLDER]

Each way has an app process and an experiment of its own on one real MLflow server on SQLite; in each round all of them
run, and take short turns. Nothing is asserted: times differ from machine to machine, so look at the ratios. Where a
target is missed, the last lines say so. Takes about 45 minutes on two cores that have nothing else to do.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.measure import WAYS, Figures, caught_up, measure
from tests.benchmarks.plot import plot
from tests.servers import MLflowServer

NAMES = {
    "untraced": "untraced",
    "mlflow": "MLflow by hand",
    "otel": "OpenTelemetry to MLflow",
    "ours": "ours, everything captured",
    "ours-without-bodies": "ours, without bodies",
    "ours-sampled": "ours, `sample_ratio=0.1`",
}

COUNTED = ("mlflow", "otel", "ours")
"""The ways of which it is counted what is stored after full load."""

Rounds = dict[str, list[Figures]]


class Progress:
    """Says on stderr what is done, and when the rest will be.

    Args:
        steps: How many there are.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()

    def step(self, what: str, figures: object) -> None:
        """One more is done."""
        self._done += 1
        left = (time.monotonic() - self._began) / self._done * (self._steps - self._done) / 60
        count = f"{self._done} of {self._steps}, about {left:.0f} min left"
        print(f"[{count}] {what}: {figures}", file=sys.stderr, flush=True)


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """The median, and from where to where it goes; nothing of nothing."""
    if not values:
        return ""
    low, middle, high = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def against(rounds: Rounds, way: str, value: Callable[[Figures, Figures], float]) -> list[float]:
    """A figure of each round against that of the untraced app in the same round; none where one was not measured."""
    if way not in rounds or "untraced" not in rounds:
        return []
    return [value(mine, plain) for mine, plain in zip(rounds[way], rounds["untraced"], strict=True)]


def added(rounds: Rounds, way: str) -> list[float]:
    """CPU that a way adds to a request, in microseconds."""
    return against(rounds, way, lambda mine, plain: mine.cpu - plain.cpu)


def kept(rounds: Rounds, way: str) -> list[float]:
    """The share of the untraced throughput that is left."""
    return against(rounds, way, lambda mine, plain: mine.throughput / plain.throughput)


def beside(rounds: Rounds) -> list[float]:
    """What it adds to that percentile of an untraced app when the server stores another app's traces beside it."""
    return [plain.p99_beside - plain.p99 for plain in rounds.get("untraced", ()) if plain.p99_beside]


def p99(rounds: Rounds, way: str) -> list[float]:
    """What a way adds to the 99th percentile of the latency, in milliseconds."""
    return against(rounds, way, lambda mine, plain: mine.p99 - plain.p99)


def shares(rounds: Rounds, way: str, other: str) -> list[float]:
    """What a way adds to the CPU, as a share of what another adds; none where one was not measured."""
    if way not in rounds or other not in rounds:
        return []
    return [mine / theirs for mine, theirs in zip(added(rounds, way), added(rounds, other), strict=True)]


def table(framework: str, rounds: Rounds, stored: dict[str, Figures]) -> list[str]:
    """The Markdown table of one framework."""
    lines = [
        f"| {framework} | throughput kept | CPU added to a request, µs | p50 / p99 added, ms | memory, MiB | stored |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for way in rounds:
        p50s = against(rounds, way, lambda mine, plain: mine.p50 - plain.p50)
        memory = spread([figures.memory for figures in rounds[way]], "{:.0f}")
        counted = stored.get(way)
        share = f"{100 * counted.stored / counted.requests:.1f} %" if counted else ""
        if way == "untraced":
            lines.append(f"| {NAMES[way]} | 1 | | | {memory} | |")
            continue
        latencies = f"{statistics.median(p50s):.2f} / {spread(p99(rounds, way), '{:.1f}')}" if p50s else ""
        lines.append(
            f"| {NAMES[way]} | {spread(kept(rounds, way))} | {spread(added(rounds, way), '{:.0f}')} "
            f"| {latencies} | {memory} | {share} |"
        )
    return lines


def verdicts(framework: str, rounds: Rounds, stored: dict[str, Figures]) -> list[str]:
    """Each target of which all was measured: reached or missed."""
    lines = []

    def judge(what: str, values: list[float], target: float, at_least: bool = False) -> None:
        if not values:
            return
        middle = statistics.median(values)
        good = middle >= target if at_least else middle <= target
        words = "reached" if good else "MISSED"
        lines.append(f"{framework}, {what}: {spread(values)}, target {target:g}: {words}")

    if framework == "FastAPI":
        judge("throughput kept", kept(rounds, "ours"), 0.60, at_least=True)
        judge("CPU added, ours / by hand", shares(rounds, "ours", "mlflow"), 0.1)
    judge("CPU added, ours / OpenTelemetry's", shares(rounds, "ours", "otel"), 0.6)
    judge("p99 at 200 requests/s, ours - untraced (ms)", p99(rounds, "ours"), 1.0)
    if values := beside(rounds):
        lines.append(
            f"{framework}, for comparison, an untraced app's while the server stores another's traces: {spread(values)}"
        )
    if "ours" in stored:
        judge("share stored", [stored["ours"].stored / stored["ours"].requests], 1.0, at_least=True)
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", default="FastAPI,Flask,Django", metavar="NAME[,NAME]")
    parser.add_argument("--ways", default=",".join(WAYS), metavar="NAME[,NAME]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--rate", type=float, default=200.0, help="requests a second where latency and CPU are measured"
    )
    parser.add_argument("--slices", type=int, default=2, help="turns of each way in a round")
    parser.add_argument("--gentle", type=float, default=1.0, help="seconds of a turn, at that rate")
    parser.add_argument("--saturated", type=float, default=2.5, help="seconds at full load")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where benchmark.md and benchmark.svg go")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    frameworks, ways = arguments.frameworks.split(","), arguments.ways.split(",")
    progress = Progress(len(frameworks) * (arguments.rounds + len({*ways} & {*COUNTED})))
    text, judged, plotted = [], [], {}
    for framework in frameworks:
        rounds, stored = run(framework, ways, arguments, progress)
        text += [*table(framework, rounds, stored), ""]
        judged += verdicts(framework, rounds, stored)
        plotted[framework] = {
            NAMES[way].replace("`", ""): (kept(rounds, way), added(rounds, way))
            for way in rounds
            if way != "untraced" and "untraced" in rounds
        }
    print("\n".join([*text, *judged]))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "benchmark.md").write_text("\n".join(text))
        (arguments.output / "benchmark.svg").write_text(plot(plotted))


def run(
    framework: str, ways: list[str], arguments: argparse.Namespace, progress: Progress
) -> tuple[Rounds, dict[str, Figures]]:
    """All rounds of one framework, on a server of its own; then what is stored of a saturated app, way by way."""
    rounds: Rounds = defaultdict(list)
    stored = {}
    how = {name: getattr(arguments, name) for name in ("rate", "slices", "gentle", "saturated")}
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-benchmark-") as name:
        folder = Path(name)
        server = MLflowServer(folder)
        server.start()
        try:
            for number in range(arguments.rounds):
                found = measure(framework, ways, server, folder, number=number, **how)
                for way, figures in found.items():
                    rounds[way].append(figures)
                progress.step(f"{framework}, round {number + 1}", found)
            for way in ways:
                if way in COUNTED:
                    stored[way] = caught_up(framework, way, server, folder, saturated=arguments.saturated)
                    progress.step(f"{framework}, caught up, {way}", stored[way])
        finally:
            server.stop()
    return rounds, stored


if __name__ == "__main__":
    main()
