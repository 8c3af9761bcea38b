"""Other projects' own tests, unmodified and with every app wrapped in our middleware: the same tests pass.

    python -m tests.transparency [--only PROJECT[,PROJECT]] [--folder FOLDER]

Their source distributions are downloaded in the versions that are installed here. Wrapped, the apps trace to a real
MLflow server, with all options at their defaults but two: the response headers are off, because the tests compare
headers, and no path is excluded. Exits with 1 if a test passes unmodified and not wrapped, if tracing itself failed,
lost a trace or made none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.servers import MLflowServer, clean_environment
from tests.transparency.suites import SUITES, Suite

PLUGINS = Path(__file__).parent / "plugins"
AS_IT_IS = "plain"
TIMEOUT = 1200.0
"""Seconds that one run of one suite may take."""


def unpacked(project: str, folder: Path) -> Path:
    """Download and unpack the source distribution of the installed version; return its folder."""
    place = folder / project
    place.mkdir()
    wanted = f"{project}=={metadata.version(project)}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-binary", project, "--dest", str(place), wanted], check=True)
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(place, filter="data")
    (unpacked,) = (each for each in place.iterdir() if each.is_dir())
    return unpacked


def run(suite: Suite, source: Path, way: str, server: MLflowServer) -> dict[str, Any]:
    """Run a suite's tests one way; return the report of `plugins.wrapping.write`."""
    report, log = source.parent / "report.json", source.parent / "log"
    report.unlink(missing_ok=True)
    environment = clean_environment(
        PYTHONPATH=str(PLUGINS),
        TRANSPARENCY_WAY=way,
        TRANSPARENCY_OUTCOMES=str(report),
        MLFLOW_TRACKING_URI=server.uri,
        MLFLOW_EXPERIMENT_NAME=f"{suite.project}, {way}",
        MLFLOW_MIDDLEWARE_RESPONSE_HEADERS="{}",
        MLFLOW_MIDDLEWARE_EXCLUDE="[]",
    )
    with log.open("wb") as output:
        subprocess.run(
            suite.command,
            cwd=source / suite.folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,  # some tests fail unmodified, in an environment that is not their project's own
        )
    if not report.exists():
        raise SystemExit(f"{suite.project}, {way}: the tests did not run\n{log.read_text(errors='replace')[-4000:]}")
    result: dict[str, Any] = json.loads(report.read_text())
    return result


def compared(suite: Suite, plain: dict[str, Any], wrapped: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Compare two reports: return the faults, and other findings."""
    faults, notes = [], []
    for failure, times in wrapped["failures"].items():
        line = f"{failure}, {times} times"
        if failure in suite.known:
            notes.append(f"{line}; known: {suite.known[failure]}")
        else:
            faults.append(line)
    before, after = plain["outcomes"], wrapped["outcomes"]
    for test in sorted({*before, *after}):
        was, became = before.get(test, "missing"), after.get(test, "missing")
        if was == became:
            continue
        line = f"{test}: {was}, wrapped {became}"
        if test in suite.known:
            notes.append(f"{line}; known: {suite.known[test]}")
        elif was == "passed" or became == "failed":
            faults.append(line)
        else:
            notes.append(line)
    if wrapped["lost"] or not wrapped["delivered"]:
        faults.append(f"{wrapped['delivered']} traces delivered, {wrapped['lost']} lost")
    return faults, notes


def check(suite: Suite, source: Path, server: MLflowServer) -> bool:
    """Run a suite unmodified and in each way, and print the results; return whether there were no faults."""
    plain = run(suite, source, AS_IT_IS, server)
    counts = Counter(plain["outcomes"].values())
    print(f"{source.name}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()), flush=True)
    for test in (test for test, outcome in plain["outcomes"].items() if outcome == "failed"):
        print(f"  fails as it is, and says nothing: {test}")
    is_well = counts["passed"] > 0
    for way in suite.ways:
        wrapped = run(suite, source, way, server)
        faults, notes = compared(suite, plain, wrapped)
        passed = sum(outcome == "passed" for outcome in wrapped["outcomes"].values())
        print(f"  {way}: {passed} passed, {wrapped['delivered']} traces, {len(faults)} faults", flush=True)
        for line in (*(f"FAULT {fault}" for fault in faults), *notes):
            print(f"    {line}")
        is_well = is_well and not faults
    return is_well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="PROJECT[,PROJECT]")
    parser.add_argument("--folder", type=Path, help="where the sources go; the system's temporary folder by default")
    arguments = parser.parse_args()
    suites = [suite for suite in SUITES if not arguments.only or suite.project in arguments.only]
    with tempfile.TemporaryDirectory(prefix="transparency-", dir=arguments.folder) as name:
        folder = Path(name)
        sources = {project: unpacked(project, folder) for project in {suite.project: None for suite in suites}}
        server = MLflowServer(folder)
        server.start()
        try:
            results = [check(suite, sources[suite.project], server) for suite in suites]
        finally:
            server.stop()
    print("the same tests pass" if all(results) else "NOT transparent")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
