"""Instructions of a request: a count to base decisions on, as it does not drift like time does.

    python -m tests.benchmarks.instructions [--source FOLDER]

Of each scenario of ``in_process``, the instructions of 150 requests in one process less those of 50, divided by 100,
as valgrind's callgrind counts them (https://valgrind.org/docs/manual/cl-manual.html). ``--source`` counts those of
another checkout, with this one's scenarios: run both, and compare. Takes about two minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.in_process import GROUPS, Scenario, command, environment
from tests.benchmarks.spans import KINDS
from tests.servers import ROOT

FEW, MANY = 50, 150
"""Requests whose instructions are counted; the difference excludes one-time costs."""


def start(group: str, source: Path, folder: Path) -> subprocess.Popen[str]:
    """Count a group of scenarios; each process leaves a file named after its id."""
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/%p", f"--log-file={folder}/log-{group}"]
    return subprocess.Popen(
        [*valgrind, *command(group, source, FEW, MANY)],
        cwd=ROOT,
        env={**environment(source), "PYTHONMALLOC": "pymalloc"},
        stdout=subprocess.PIPE,
        text=True,
    )


def instructions(file: Path) -> int:
    """Return all instructions that callgrind has counted in one process."""
    (total,) = (line for line in file.read_text().splitlines() if line.startswith("totals:"))
    return int(total.split()[1])


def counted(source: Path) -> dict[Scenario, float]:
    """Return the instructions of a request in each scenario."""
    found: dict[tuple[Scenario, int], int] = {}
    with tempfile.TemporaryDirectory(prefix="mlflow-middleware-callgrind-") as name:
        processes = [start(group, source, Path(name)) for group in GROUPS]
        for process in processes:
            output, _ = process.communicate()
            if process.returncode:
                raise SystemExit(f"The measured process ended with {process.returncode}.")
            for way, kind, requests, pid, _ in map(json.loads, output.splitlines()):
                found[Scenario(way, kind), requests] = instructions(Path(name, str(pid)))
    scenarios = {scenario for scenario, _ in found}
    return {each: (found[each, MANY] - found[each, FEW]) / (MANY - FEW) for each in scenarios}


def table(found: dict[Scenario, float]) -> list[str]:
    """Return a row for each way, with a column for each kind of request."""
    names = {
        "app": "the app alone",
        "nowhere": "MLflow's own root and children, exported to nowhere",
        "path": "ours, path only",
        "encoded": "ours, path and encoding",
    }
    lines = ["| instructions of a request, millions | no child span | one | two |", "| --- | --- | --- | --- |"]
    for way, name in names.items():
        values = [found.get(Scenario(way, kind)) for kind in KINDS]
        lines.append(f"| {name} | {' | '.join('' if value is None else f'{value / 1e6:.3f}' for value in values)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT, metavar="FOLDER", help="a checkout; this one by default")
    source = parser.parse_args().source.resolve()
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed; on Debian or Ubuntu: apt install valgrind")
    print("\n".join(table(counted(source))))


if __name__ == "__main__":
    main()
