"""The versions that the tests have passed on: tox's report, kept in a file, from which a page is written.

tox run -m matrix --result-json .tox/matrix.json
python -m tests.matrix .tox/matrix.json
"""

from __future__ import annotations

import configparser
import datetime
import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.servers import ROOT

RESULTS = ROOT / "tests" / "data" / "matrix.json"
PAGE = ROOT / "docs" / "versions.md"

_SHOWN = ("mlflow", "mlflow-tracing", "fastapi", "starlette", "flask", "werkzeug", "django")
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
_TEXT = """# Tested versions

The tests of this repository, as they ended in each environment of `tox run -m matrix`, with the versions that were
installed there. `py310` to `py313` and `once` have the newest versions; the environments of one framework, or of one
MLflow, run the tests that depend on it. The versions that are *supported* are in the README.

`tox run -m matrix --result-json FILE` and `python -m tests.matrix FILE` write this page.

"""


def record(report: dict[str, Any], into: dict[str, Any]) -> None:
    """Adopt the results of the environments in a report of tox.

    Args:
        report: The file of ``--result-json`` (https://tox.wiki/en/latest/cli_interface.html).
        into: The known results by environment, which are changed.
    """
    known = environments()
    for name, environment in report["testenvs"].items():
        runs = environment.get("test")
        if not runs or name not in known:
            continue
        installed = dict(_requirement(line) for line in environment["installed_packages"])
        counts: dict[str, int] = {}
        for run in runs:
            for count, kind in _COUNTS.findall(run["output"].rstrip().rsplit("\n", 1)[-1]):
                counts[kind.rstrip("s") if kind.startswith("error") else kind] = counts.get(kind, 0) + int(count)
        into[name] = {
            "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
            "python": ".".join(map(str, environment["python"]["version_info"][:3])),
            "packages": {package: installed[package] for package in _SHOWN if package in installed},
            "counts": counts,
            "passed": all(run["retcode"] == 0 for run in runs),
        }


def _requirement(line: str) -> tuple[str, str]:
    name, _, version = line.replace(" @ ", "==").partition("==")
    return name.lower().replace("_", "-"), version


def environments() -> list[str]:
    """Return the environments of the label ``matrix``."""
    tox = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
    tox.read(ROOT / "tox.ini")
    labels = tox["tox"]["labels"].replace("\\\n", "").partition("matrix =")[2]
    names = re.findall(r"[^\s,{]+(?:\{[^}]*\}[^\s,]*)?", labels)
    return [expanded for name in names for expanded in _expanded(name)]


def _expanded(name: str) -> list[str]:
    match = re.fullmatch(r"([^{]*)\{([^}]*)\}(.*)", name)
    return [f"{match[1]}{each}{match[3]}" for each in match[2].split(",")] if match else [name]


def page(results: dict[str, Any]) -> str:
    """Return the page, with a row for each environment."""
    lines = ["| environment | Python | versions | passed | on |", "| --- | --- | --- | --- | --- |"]
    for name in environments():
        if name not in results:
            lines.append(f"| `{name}` | | | not run yet | |")
            continue
        result = results[name]
        packages = result["packages"]
        versions = ", ".join(f"{package} {packages[package]}" for package in _SHOWN if package in packages)
        lines.append(f"| `{name}` | {result['python']} | {versions} | {_outcome(result)} | {result['date']} |")
    return _TEXT + "\n".join(lines) + "\n"


def _outcome(result: dict[str, Any]) -> str:
    counts = result["counts"]
    outcome = str(counts.get("passed", 0))
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if failed or not result["passed"]:
        outcome += f"; **{failed or 'not to its end:'} failed**"
    return outcome + (f" ({counts['skipped']} skipped)" if "skipped" in counts else "")


def results() -> dict[str, Any]:
    """Return the known results of each environment."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def main(reports: list[Path]) -> None:
    """Adopt reports of tox, and write the page."""
    known = results()
    for report in reports:
        record(json.loads(report.read_text()), known)
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(known))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
