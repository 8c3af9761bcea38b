"""``mlflow-middleware traces``: print stored traces, or figures for each route, as a table or as JSON."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from types import FrameType
from typing import TYPE_CHECKING, Any

from mlflow_middleware.commands.table import Table
from mlflow_middleware.identity import clean_text
from mlflow_middleware.trace import keys
from mlflow_middleware.traces import PAGE, ConnectionProblem, find

if TYPE_CHECKING:
    from mlflow.entities.trace_info import TraceInfo

PAUSE = 2.0
"""Seconds between two searches for new traces."""

LIMIT = 100
"""Maximum number of traces shown, unless ``--limit`` is given."""

LATE = timedelta(hours=1)
"""A trace is stored when its request is over: with ``--follow``, one that began this long ago is still new."""

GOOD = frozenset(("yes", "true", "good", "correct", "up", "positive"))
"""Textual ratings that count as good."""


@dataclass(frozen=True, slots=True)
class Rating:
    """Feedback on a trace.

    Attributes:
        name: What was rated.
        value: The rating.
        by: Who gave it: a user's id, or a judge's name.
        is_human: Whether a person gave it.
        comment: Why.
    """

    name: str
    value: Any
    by: str | None
    is_human: bool
    comment: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """A trace, as it is shown."""

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


@dataclass(frozen=True, slots=True)
class Route:
    """The traces of a route, counted. Times are those that 50 % and 95 % of them did not exceed.

    Attributes:
        rated: The share of traces that a person rated.
        rated_well: The share of these ratings that are good; None where there is none.
    """

    name: str
    requests: int
    errors: int
    p50_milliseconds: int | None
    p95_milliseconds: int | None
    rated: float
    rated_well: float | None


def run(
    conditions: Mapping[str, Any], *, feedback: bool, as_json: bool, follow: bool, summary: bool, good_from: float
) -> int:
    """Run the command.

    Args:
        conditions: Arguments of `mlflow_middleware.traces.find`.
        feedback: Whether ratings are shown.
        as_json: Print JSON instead of a table.
        follow: Keep printing new traces until Ctrl-C.
        summary: Print figures for each route.
        good_from: The lowest number that is a good rating.

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
            _print_routes(find(**{"limit": None, **conditions}), as_json, good_from)
        else:
            rows = [_row(trace) for trace in find(**conditions)]
            print(_json(rows, feedback) if as_json else "\n".join(Table(_heads(feedback)).add(_cells(rows, feedback))))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`; https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    tags, metadata = trace.tags, trace.trace_metadata
    began = datetime.fromtimestamp(trace.request_time / 1000).astimezone()
    return Row(
        time=began.isoformat(timespec="milliseconds"),
        name=tags.get(keys.NAME) or tags.get("http.route") or "",
        status=tags.get("http.status_code"),
        request_id=tags.get(keys.CLIENT_REQUEST_ID) or trace.client_request_id,
        session_id=metadata.get(keys.SESSION) or tags.get(keys.SESSION),
        user_id=metadata.get(keys.USER) or tags.get(keys.USER),
        milliseconds=trace.execution_duration,
        state=trace.state.value,
        trace_id=trace.trace_id,
        feedback=_ratings(trace),
    )


def _ratings(trace: TraceInfo) -> list[Rating]:
    """Return the ratings that no later one replaced."""
    from mlflow.entities import Feedback

    return [
        Rating(each.name, each.value, each.source.source_id, each.source.source_type == "HUMAN", each.rationale)
        for each in trace.assessments
        if isinstance(each, Feedback) and each.valid is not False and each.error is None
    ]


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
    """Print the traces that are stored now, then new ones, until interrupted."""
    table, printed = Table(_heads(feedback)), dict[str, int]()
    limit = conditions.get("limit", LIMIT)
    start = _start(conditions.get("since"))
    first = list(find(**{**conditions, "limit": max(limit, PAGE)}))
    if len(first) >= PAGE:  # older traces are not new, although they were never seen
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
    """Yield traces that were not printed yet, newest first; stop after a whole page of printed ones."""
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


# --- by route --------------------------------------------------------------------------------------------------


def _print_routes(found: Iterator[TraceInfo], as_json: bool, good_from: float) -> None:
    rows = _routes(found, lambda value: _is_good(value, good_from))
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    heads = ["route", "requests", "errors", "p50 ms", "p95 ms", "rated", "rated well"]
    lines = [
        [
            *(_cell(row.name), str(row.requests), str(row.errors)),
            *(_cell(row.p50_milliseconds), _cell(row.p95_milliseconds)),
            *(f"{row.rated:.0%}", "-" if row.rated_well is None else f"{row.rated_well:.0%}"),
        ]
        for row in rows
    ]
    print("\n".join(Table(heads).add(lines)))


def _routes(found: Iterator[TraceInfo], is_good: Callable[[Any], bool]) -> list[Route]:
    """Summarize the traces by route, the one with most requests first."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for trace in found:
        row = _row(trace)
        by_name[row.name].append(row)
    routes = [_route(name, rows, is_good) for name, rows in by_name.items()]
    return sorted(routes, key=lambda route: (-route.requests, route.name))


def _route(name: str, rows: Sequence[Row], is_good: Callable[[Any], bool]) -> Route:
    times = sorted(row.milliseconds for row in rows if row.milliseconds is not None)
    ratings = [[rating.value for rating in row.feedback if rating.is_human] for row in rows]
    values = [value for each in ratings for value in each]
    return Route(
        name=name,
        requests=len(rows),
        errors=sum(row.state == "ERROR" for row in rows),
        p50_milliseconds=_percentile(times, 0.50),
        p95_milliseconds=_percentile(times, 0.95),
        rated=sum(map(bool, ratings)) / len(rows),
        rated_well=sum(map(is_good, values)) / len(values) if values else None,
    )


def _percentile(ordered: Sequence[int], share: float) -> int | None:
    """Return the smallest value that this share of the values does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _is_good(value: Any, good_from: float) -> bool:
    if isinstance(value, int | float):
        return value >= good_from if not isinstance(value, bool) else value
    return isinstance(value, str) and value.strip().lower() in GOOD
