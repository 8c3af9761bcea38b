"""The README's figures: a Markdown table for each framework and kind of request, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.benchmarks.measure import UNTRACED, Case, Figures

NAMES = {
    "untraced": "untraced",
    "mlflow": "MLflow by hand",
    "nowhere": "MLflow by hand, exported to nowhere",
    "otel": "OpenTelemetry to MLflow",
    "ours": "ours, everything captured",
    "ours-without-bodies": "ours, without bodies",
    "ours-sampled": "ours, `sample_ratio=0.1`",
}

KIND_NAMES = {"none": "no child span", "one": "one child span", "two": "two child spans"}

COLUMNS = (
    "throughput kept",
    "CPU added to a request, µs",
    "CPU for a stored trace, µs",
    "stored",
    "p50 / p99 added, ms",
    "memory, MiB",
)


@dataclass
class Results:
    """All figures of one framework.

    Attributes:
        rounds: The figures of each round, at the gentle rate except for throughput and memory.
        bursts: Those of one period of full load, until nothing more reaches the server.
    """

    rounds: dict[Case, list[Figures]] = field(default_factory=dict)
    bursts: dict[Case, Figures] = field(default_factory=dict)

    def add(self, found: dict[Case, Figures]) -> None:
        """Add a round."""
        for case, figures in found.items():
            self.rounds.setdefault(case, []).append(figures)

    def against(self, case: Case, value: Callable[[Figures, Figures], float]) -> list[float]:
        """Return each round's figure relative to that of the untraced app in the same round, if both exist."""
        mine, plain = self.rounds.get(case, []), self.rounds.get(UNTRACED, [])
        return [value(each, other) for each, other in zip(mine, plain, strict=True)] if mine and plain else []

    def added(self, case: Case) -> list[float]:
        """Return the CPU that a way adds to a request, in microseconds."""
        return self.against(case, lambda mine, plain: mine.cpu - plain.cpu)

    def kept(self, case: Case) -> list[float]:
        """Return the share of the untraced throughput that is left."""
        return self.against(case, lambda mine, plain: mine.throughput / plain.throughput)

    def p99(self, case: Case) -> list[float]:
        """Return the addition to the 99th percentile of the latency, in milliseconds."""
        return self.against(case, lambda mine, plain: mine.p99 - plain.p99)

    def for_stored(self, case: Case) -> list[float]:
        """Return the CPU added for each stored trace; empty for rounds that stored none."""
        values = self.against(case, lambda mine, plain: per_stored(mine, plain) or 0.0)
        return [value for value in values if value]

    def shares(self, case: Case, other: Case) -> list[float]:
        """Return the CPU that a way adds, as a share of another's; empty if either is missing."""
        mine, theirs = self.added(case), self.added(other)
        return [each / its for each, its in zip(mine, theirs, strict=True)] if mine and theirs else []

    def burst(self, case: Case) -> tuple[str, str, str]:
        """Return, under full load, the CPU added to a request, the CPU for a stored trace, and the share stored."""
        mine, plain = self.bursts.get(case), self.bursts.get(UNTRACED)
        if not mine:
            return "", "", ""
        costs = per_stored(mine, plain) if plain else None
        return (
            f"{mine.cpu - plain.cpu:.0f}" if plain else "",
            f"{costs:.0f}" if costs else "",
            percent(mine.stored / mine.requests),
        )


def per_stored(mine: Figures, plain: Figures) -> float | None:
    """Return the CPU added for each trace that the server has in the end."""
    return (mine.cpu - plain.cpu) * mine.requests / mine.stored if mine.stored else None


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """Format the median and the range; empty without values."""
    if not values:
        return ""
    low, middle, high = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def both(gentle: str, saturated: str) -> str:
    """Format a figure at both rates."""
    return f"{gentle} / {saturated}" if gentle and saturated else gentle or saturated


def tables(framework: str, results: Results) -> Iterator[str]:
    """Return the lines of all tables of one framework."""
    for kind in dict.fromkeys(case.kind for case in results.rounds):
        title = f"{framework}, {KIND_NAMES[kind]}"
        yield f"| {title} | {' | '.join(COLUMNS)} |"
        yield f"| --- |{' --- |' * len(COLUMNS)}"
        for case in results.rounds:
            if case == UNTRACED or case.kind == kind:
                yield f"| {NAMES[case.way]} | {' | '.join(row(results, case))} |"
        yield ""


def row(results: Results, case: Case) -> list[str]:
    """Return the cells of one way."""
    rounds = results.rounds[case]
    memory = spread([figures.memory for figures in rounds], "{:.0f}")
    if case == UNTRACED:
        return ["1", "", "", "", "", memory]
    p50 = results.against(case, lambda mine, plain: mine.p50 - plain.p50)
    latency = f"{statistics.median(p50):.2f} / {spread(results.p99(case), '{:.1f}')}" if p50 else ""
    added, costs, share = results.burst(case)
    stores = case.way not in ("nowhere", "ours-sampled")
    stored = percent(sum(each.stored for each in rounds) / sum(each.requests for each in rounds))
    return [
        spread(results.kept(case)),
        both(spread(results.added(case), "{:.0f}"), added),
        both(spread(results.for_stored(case), "{:.0f}"), costs) if stores else "",
        both(stored, share) if stores else "",
        latency,
        memory,
    ]


def verdicts(framework: str, results: Results) -> list[str]:
    """Return each target with complete measurements: reached or missed."""
    lines = []

    def judge(what: str, values: list[float], target: float, at_least: bool = False) -> None:
        if not values:
            return
        middle = statistics.median(values)
        good = middle >= target if at_least else middle <= target
        words = "reached" if good else "MISSED"
        lines.append(f"{framework}, {what}: {spread(values)}, target {target:g}: {words}")

    for kind, throughput, share in (("none", 0.6, 0.8), ("two", 0.36, 1.5)):
        ours, otel, name = Case("ours", kind), Case("otel", kind), KIND_NAMES[kind]
        if framework == "FastAPI":
            judge(f"{name}, throughput kept", results.kept(ours), throughput, at_least=True)
        judge(f"{name}, CPU added, ours / OpenTelemetry's", results.shares(ours, otel), share)
        if counted := results.bursts.get(ours):
            judge(f"{name}, share stored after full load", [counted.stored / counted.requests], 1.0, at_least=True)
    judge("no child span, CPU added, ours / by hand", results.shares(Case("ours", "none"), Case("mlflow", "none")), 0.1)
    judge("no child span, p99 at the gentle rate, ours - untraced (ms)", results.p99(Case("ours", "none")), 1.0)
    beside = [plain.p99_beside - plain.p99 for plain in results.rounds.get(UNTRACED, ()) if plain.p99_beside]
    if beside:
        lines.append(
            f"{framework}, p99 of an untraced app while the server stores another's traces: + {spread(beside)}"
        )
    return lines
