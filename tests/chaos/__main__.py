"""The losses of our delivery and of MLflow's own exporter, side by side, as a Markdown table.

    python -m tests.chaos [--only N[,N]] [--output FILE]

Real processes, and one real MLflow server on SQLite. Takes about ten minutes on two otherwise idle cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.lab import MLFLOWS, OURS, Lab, Way
from tests.chaos.scenarios import SCENARIOS, WAITING, Rows
from tests.servers import MLflowServer


def attempt(lab: Lab, number: int, way: Way) -> Rows:
    """Run one scenario one way; a failure becomes a row, so that the others go on."""
    began = time.monotonic()
    try:
        rows = SCENARIOS[number - 1](lab, way)
    except Exception as error:
        log = (lab.folder / "mlflow.log").read_text(errors="replace")
        print(f"{number}, {way.name}: {error!r}; the MLflow server said:\n{log[-1000:]}", file=sys.stderr)
        rows = {f"scenario {number}": f"failed: {type(error).__name__}"}
    print(f"{number}, {way.name}, {time.monotonic() - began:.0f} s: {rows}", file=sys.stderr, flush=True)
    return rows


def run(lab: Lab, numbers: list[int]) -> list[str]:
    """Run scenarios; return the lines of the table."""
    waiting = [number for number in numbers if number in WAITING]
    with ThreadPoolExecutor() as pool:
        waited = dict(zip(waiting, pool.map(lambda number: attempt(lab, number, MLFLOWS), waiting), strict=True))
    lines = [f"| scenario | {MLFLOWS.name} | {OURS.name} |", "| --- | --- | --- |"]
    for number in numbers:
        mlflows = waited[number] if number in waited else attempt(lab, number, MLFLOWS)
        ours = attempt(lab, number, OURS)
        lines += [f"| {row} | {mlflows.get(row, '')} | {ours.get(row, '')} |" for row in {**ours, **mlflows}]
    return lines


def numbers_of(text: str) -> list[int]:
    """Parse ``1,3`` as the scenarios 1 and 3."""
    numbers = [int(each) for each in text.split(",")]
    if not all(1 <= number <= len(SCENARIOS) for number in numbers):
        raise argparse.ArgumentTypeError(f"scenarios are numbered from 1 to {len(SCENARIOS)}")
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=numbers_of, default=list(range(1, len(SCENARIOS) + 1)), metavar="N[,N]")
    parser.add_argument("--output", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-chaos-") as folder:
        server = MLflowServer(Path(folder))
        server.start()
        try:
            table = "\n".join(run(Lab(Path(folder), server), arguments.only)) + "\n"
        finally:
            server.stop()
    print(table, end="")
    if arguments.output:
        arguments.output.write_text(table)


if __name__ == "__main__":
    main()
