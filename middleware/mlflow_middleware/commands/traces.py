"""``mlflow-middleware traces``: print stored traces, as a table or as JSON."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from types import FrameType
from typing import TYPE_CHECKING, Any

from mlflow_middleware.commands import traces_summary
from mlflow_middleware.commands.table import Table
from mlflow_middleware.identity import clean_text
from mlflow_middleware.ratings import Rating, ratings_of
from mlflow_middleware.summaries import known, name_of
from mlflow_middleware.trace import keys
from mlflow_middleware.traces import PAGE, ConnectionProblem, find

if TYPE_CHECKING:
    from mlflow.entities.trace_info import TraceInfo

PAUSE = 2.0
"""Seconds between two searches for new traces."""

LIMIT = 100
"""Maximum number of traces shown, unless ``--limit`` is given."""

LATE = timedelta(hours=1)
"""Maximum age of a trace that ``--follow`` treats as new: a trace is stored only when its request is over."""


@dataclass(frozen=True, slots=True)
class Row:
    """The displayed values of a trace."""

    time: str
    name: str
    status: str | None
    request_id: str | None
    session_id: str | None
    user_id: str | None
    milliseconds: int | None
    state: str
    trace_id: str
    feedback: list[Rating]


def run(
    conditions: Mapping[str, Any],
    *,
    feedback: bool,
    as_json: bool,
    follow: bool,
    summary: bool,
    by: str | None,
    good_from: float,
) -> int:
    """Run the command.

    Args:
        conditions: Arguments of `mlflow_middleware.traces.find`.
        feedback: Whether to show ratings.
        as_json: Whether to print JSON instead of a table.
        follow: Whether to keep printing new traces until Ctrl-C.
        summary: Whether to print figures.
        by: The grouping of these figures; None for the route.
        good_from: The lowest number that counts as a good rating.

    Returns:
        The exit code: 0; 1 if the server is unreachable, refuses the request or has no such experiment; 2 for a value
        that cannot be searched for.
    """
    try:
        if follow:
            interrupted = _interrupted()
            with suppress(KeyboardInterrupt):
                _follow(conditions, feedback, as_json, interrupted)
        elif summary:
            traces_summary.show(conditions, by or "route", as_json=as_json, good_from=good_from)
        else:
            rows = [_row(trace) for trace in find(**conditions)]
            print(_json(rows, feedback) if as_json else "\n".join(Table(_heads(feedback)).add(_cells(rows, feedback))))
    except ConnectionProblem as problem:
        return _fail(problem, 1)
    except ValueError as error:
        return _fail(error, 2)
    return 0


def _interrupted() -> threading.Event:
    """Return an event that Ctrl-C sets: Python drops its exception if it is raised in a destructor or a callback."""
    interrupted = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    return interrupted


def _fail(error: Exception, code: int) -> int:
    print(f"mlflow-middleware traces: {error}", file=sys.stderr)
    return code


# --- traces ----------------------------------------------------------------------------------------------------


def _row(trace: TraceInfo) -> Row:
    tags = trace.tags
    began = datetime.fromtimestamp(trace.request_time / 1000).astimezone()
    return Row(
        time=began.isoformat(timespec="milliseconds"),
        name=name_of(trace),
        status=tags.get("http.status_code"),
        request_id=tags.get(keys.CLIENT_REQUEST_ID) or trace.client_request_id,
        session_id=known(trace, keys.SESSION),
        user_id=known(trace, keys.USER),
        milliseconds=trace.execution_duration,
        state=trace.state.value,
        trace_id=trace.trace_id,
        feedback=ratings_of(trace),
    )


def _json(rows: Sequence[Row], feedback: bool) -> str:
    return json.dumps([_plain(row, feedback) for row in rows], indent=2)


def _plain(row: Row, feedback: bool) -> dict[str, Any]:
    plain = asdict(row)
    if not feedback:
        del plain["feedback"]
    return plain


def _heads(feedback: bool) -> list[str]:
    heads = ["time", "route", "status", "request id", "session", "user", "ms", "state"]
    return [*heads, "feedback"] if feedback else heads


def _cells(rows: Sequence[Row], feedback: bool) -> list[list[str]]:
    return [[_cell(cell) for cell in _columns(row, feedback)] for row in rows]


def _columns(row: Row, feedback: bool) -> Iterator[object]:
    yield row.time[:19].replace("T", " ")
    yield from (row.name, row.status, row.request_id, row.session_id, row.user_id, row.milliseconds, row.state)
    if feedback:
        yield ", ".join(map(_rating, row.feedback))


def _rating(rating: Rating) -> str:
    value = json.dumps(rating.value) if isinstance(rating.value, bool) else str(rating.value)
    comment = f" ({rating.comment})" if rating.comment else ""
    return f"{rating.name}={value} by {rating.by or '-'}{comment}"


def _cell(value: object) -> str:
    """Format a value, without control characters; ``-`` if there is none."""
    return clean_text(value) or "-"


# --- as they arrive --------------------------------------------------------------------------------------------


def _follow(conditions: Mapping[str, Any], feedback: bool, as_json: bool, interrupted: threading.Event) -> None:
    """Print the currently stored traces, then new ones, until interrupted."""
    table, printed = Table(_heads(feedback)), dict[str, int]()
    limit = conditions.get("limit", LIMIT)
    start = _start(conditions.get("since"))
    first = list(find(**{**conditions, "limit": max(limit, PAGE)}))
    if len(first) >= PAGE:  # older traces are not new, although they have not been seen
        start = datetime.fromtimestamp((first[-1].request_time + 1) / 1000, timezone.utc)
    printed |= {trace.trace_id: trace.request_time for trace in first[limit:]}
    _show(first[:limit], printed, table, feedback, as_json)
    problem = ""
    while not interrupted.wait(PAUSE):
        since = max(start, datetime.now(timezone.utc) - LATE)
        try:
            fresh = list(_new({**conditions, "since": since, "limit": None}, printed))
            problem = ""
        except ConnectionProblem as error:  # traces stored meanwhile are found by the next search
            if str(error) != problem:
                _fail(error, 1)
            fresh, problem = [], str(error)
        for trace_id in [each for each, began in printed.items() if began < since.timestamp() * 1000]:
            del printed[trace_id]
        _show(fresh, printed, table, feedback, as_json)


def _start(since: datetime | timedelta | None) -> datetime:
    if isinstance(since, datetime):
        return since.astimezone()
    return datetime.now(timezone.utc) - (LATE if since is None else since)


def _new(conditions: Mapping[str, Any], printed: Mapping[str, int]) -> Iterator[TraceInfo]:
    """Yield traces that have not been printed, newest first; stop after a whole page of printed ones."""
    others = 0
    for trace in find(**conditions):
        others = others + 1 if trace.trace_id in printed else 0
        if not others:
            yield trace
        elif others == PAGE:
            return


def _show(
    newest_first: Sequence[TraceInfo], printed: dict[str, int], table: Table, feedback: bool, as_json: bool
) -> None:
    """Print the complete traces, oldest first."""
    complete = [trace for trace in reversed(newest_first) if trace.state.value != "IN_PROGRESS"]
    printed |= {trace.trace_id: trace.request_time for trace in complete}
    rows = [_row(trace) for trace in complete]
    lines = (json.dumps(_plain(row, feedback)) for row in rows) if as_json else table.add(_cells(rows, feedback))
    for line in lines:
        print(line, flush=True)
