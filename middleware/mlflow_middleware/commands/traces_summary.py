"""``mlflow-middleware traces --summary``: print figures of stored traces, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mlflow_middleware.commands.table import Table
from mlflow_middleware.identity import clean_text
from mlflow_middleware.summaries import Figures, Summary, summary


def show(conditions: Mapping[str, Any], by: str, *, as_json: bool, good_from: float) -> None:
    """Print the figures of the traces that meet the conditions, and report missing values on stderr."""
    found = summary(**conditions, by=by, good_from=good_from)
    if as_json:
        print(json.dumps([asdict(row) for row in found.rows], indent=2))
    else:
        print("\n".join(_table(found)))
    for note in _notes(found):
        print(f"mlflow-middleware traces: {note}", file=sys.stderr)


def _notes(found: Summary) -> list[str]:
    unpriced = sum(row.unpriced for row in found.rows)
    notes = []
    if found.is_cut:
        notes.append(f"only the newest {found.traces:,} traces were read; --limit N reads more, --since fewer")
    if unpriced:
        notes.append(f"{unpriced:,} traces with tokens have no cost: MLflow knows no price for their models")
    return notes


def _table(found: Summary) -> list[str]:
    """Return the lines of the table, with tokens and cost if there are any."""
    with_tokens = any(row.total_tokens for row in found.rows)
    heads = [found.by, "requests", "errors", "p50 ms", "p95 ms"]
    heads += ["tokens in", "cached", "tokens out", "cost $"] if with_tokens else []
    lines = [_cells(row, with_tokens) for row in found.rows]
    return list(Table([*heads, "rated", "rated well"]).add(lines))


def _cells(row: Figures, with_tokens: bool) -> list[str]:
    counts = (row.requests, row.errors, row.p50_milliseconds, row.p95_milliseconds)
    tokens = (row.input_tokens, row.cached_tokens, row.output_tokens) if with_tokens else ()
    cost = ["-" if row.cost is None else f"{row.cost:.6f}"] if with_tokens else []
    well = "-" if row.rated_well is None else f"{row.rated_well:.0%}"
    return [*map(_cell, (row.name, *counts, *tokens)), *cost, f"{row.rated:.0%}", well]


def _cell(value: object) -> str:
    """Format a value, without control characters; ``-`` if there is none."""
    return clean_text(value) or "-"
