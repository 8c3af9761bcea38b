"""Compare: run the app with each tool, and write the findings to ``results.json`` and ``docs/comparison.md``.

``python -m tests.comparison [TOOL ...]`` runs some tools only, and keeps the other tools' findings.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.comparison.delivery import MEASURES, delivered
from tests.comparison.lab import Lab, asked
from tests.comparison.page import PAGE, RESULTS, page, results
from tests.comparison.questions import QUESTIONS
from tests.comparison.tools import MODES, MODULES
from tests.servers import MLflowServer

PACKAGES = {
    "ours": "mlflow-middleware",
    "mlflow": "mlflow-tracing",
    "langfuse": "langfuse",
    "logfire": "logfire",
    "langsmith": "langsmith",
    "datadog": "ddtrace",
}


def features(tool: str, server: MLflowServer | None) -> dict[str, dict[str, bool | str | None]]:
    """The answers to all questions, in each mode."""
    answers: dict[str, dict[str, bool | str | None]] = {}
    for mode in MODES:
        lab = Lab(tool, mode, server)
        try:
            run, votes = asked(lab)
        finally:
            lab.close()
        answers[mode] = {name: ask(run) for part in QUESTIONS.values() for name, ask in part.items()} | votes
        print(tool, mode, {name: answer for name, answer in answers[mode].items() if answer is not True}, flush=True)
    return answers


def compare(tool: str, only: list[str]) -> dict[str, Any]:
    """Find all answers for one tool, or some of them beside the known ones."""
    server = MLflowServer(Path(tempfile.mkdtemp(prefix="compare-"))) if tool in ("ours", "mlflow") else None
    known = results().get(tool, {}) if only else {}
    if server:
        server.start()
    try:
        answers = known["answers"] if known and "features" not in only else features(tool, server)
        found = delivered(tool, server, [name for name in MEASURES if not only or name in only])
    finally:
        if server:
            server.stop()
    return {
        "package": PACKAGES[tool],
        "version": version(PACKAGES[tool]),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "answers": answers,
        "delivery": {**known.get("delivery", {}), **found},
    }


def main() -> None:
    """Run the selected tools."""
    parser = argparse.ArgumentParser(prog="python -m tests.comparison", description=__doc__)
    parser.add_argument("tools", nargs="*", default=list(MODULES), help="which tools; all by default")
    parser.add_argument("--only", action="append", default=[], choices=["features", *MEASURES], help="only that")
    parser.add_argument("--page", action="store_true", help="write the page only")
    options = parser.parse_args()
    for tool in () if options.page else options.tools:
        found = compare(tool, options.only)
        RESULTS.write_text(json.dumps({**results(), tool: found}, indent=1) + "\n")
    PAGE.write_text(page(results()))


if __name__ == "__main__":
    main()
