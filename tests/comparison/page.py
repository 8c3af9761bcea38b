"""``docs/comparison.md``, written from the findings in ``results.json``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.comparison.questions import QUESTIONS

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "comparison.md"

TEMPLATE = Path(__file__).with_name("page_template.md")

TOOLS = {
    "ours": "ours",
    "mlflow": "MLflow",
    "langfuse": "Langfuse",
    "logfire": "Logfire",
    "langsmith": "LangSmith",
    "datadog": "Datadog",
}
CELLS = {"plain": "yes", "options": "option", "route": "code"}
UNTRIED = {("the cost, on the request", tool) for tool in ("langfuse", "logfire", "langsmith", "datadog")}
"""Computed by their servers, which were not part of the runs."""

SAMPLED_BY_AGENT = "datadog"
"""Its agent, which was not part of the runs, keeps errors among the traces that the tracer drops."""


def results() -> dict[str, Any]:
    """The properties of each tool."""
    known: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {tool: known[tool] for tool in TOOLS if tool in known}


def page(known: dict[str, Any]) -> str:
    """Return the whole page."""
    tables = {part: _features(known, list(names)) for part, names in QUESTIONS.items()}
    tables["Feedback"] = _votes(known)
    features = "".join(f"## {part}\n\n{table}\n" for part, table in tables.items())
    parts = {"versions": _versions(known), "features": features, "delivery": _delivery(known)}
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], TEMPLATE.read_text())


def _versions(known: dict[str, Any]) -> str:
    named = [f"{each['package']} {each['version']}" for each in known.values()]
    dates = sorted({each["date"] for each in known.values()})
    return f"Run with {', '.join(named)}, the newest on {' and '.join(dates)}."


def _table(known: dict[str, Any], rows: list[tuple[str, list[str]]]) -> str:
    head = ["", *(TOOLS[tool] for tool in known)]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows)]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def _features(known: dict[str, Any], names: list[str]) -> str:
    return _table(known, [(name, [_cell(known, tool, name) for tool in known]) for name in names])


def _cell(known: dict[str, Any], tool: str, name: str) -> str:
    if (name, tool) in UNTRIED:
        return "not tried"
    answers = known[tool]["answers"]
    first = next((mode for mode in CELLS if answers[mode].get(name) is True), None)
    if first:
        return CELLS[first]
    return "no" if any(answers[mode].get(name) is False for mode in CELLS) else "n/a"


def _votes(known: dict[str, Any]) -> str:
    def cell(answers: dict[str, Any]) -> str:
        if answers["plain"]["vote"] == "yes":
            return "yes"
        return "code" if answers["route"]["vote"] == "route" else "no"

    return _table(known, [("a route takes votes on an answer", [cell(each["answers"]) for each in known.values()])])


def _delivery(known: dict[str, Any]) -> str:
    rows = [
        ("SIGTERM right after the answer", "terminated"),
        ("the same, with a flush in the lifespan", "terminated with a flush in the lifespan"),
        ("gunicorn, `--preload`, 2 workers", "forked workers"),
        ("server refuses for 5 s", "server unreachable for 5 s"),
    ]
    table = [(title, [str(each["delivery"][key]) for each in known.values()]) for title, key in rows]
    table.append(("exit while it refuses, in seconds", [_seconds(each) for each in known.values()]))
    table.append(
        ("sampling with a share of 0: errors are kept", [_kept(tool, each["delivery"]) for tool, each in known.items()])
    )
    table.append(("no content, but the tokens", [_wordless(each["delivery"]) for each in known.values()]))
    table.append(("OTLP endpoint set: the trace is at", [_where(each["delivery"]) for each in known.values()]))
    return _table(known, table)


def _seconds(each: dict[str, Any]) -> str:
    return f"{each['delivery']['exit while the server is unreachable']:g}"


def _kept(tool: str, delivery: dict[str, Any]) -> str:
    found = delivery["sampled"]
    if tool == SAMPLED_BY_AGENT:
        return "not tried"
    return "yes" if found == {"chats": 0, "failures": 5} else "no" if not found["chats"] else "not dropped"


def _wordless(delivery: dict[str, Any]) -> str:
    found = delivery["without words"]
    return "no" if found["words"] or not found["tokens"] else "option"


def _where(found: dict[str, Any]) -> str:
    def named(counts: dict[str, int]) -> str:
        places = {"own": "its own server", "collector": "the collector"}
        there = [name for key, name in places.items() if counts[key] == 5]
        return "both" if len(there) == 2 else there[0] if there else "neither"

    option = found["beside a collector, by option"]
    return named(found["beside a collector"]) + (f"; by option {named(option)}" if option else "")
