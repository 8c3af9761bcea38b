"""Figures of stored traces, for each user, session, model, route, or value of a tag.

::

    from datetime import timedelta
    from mlflow_middleware import traces

    for row in traces.summary(by="user", since=timedelta(days=1)).rows:
        print(row.name, row.requests, row.total_tokens, row.cost)

Traces are read page by page, newest first, and counted as they come; see `summary` for how many.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlflow_middleware.ratings import is_good, ratings_of
from mlflow_middleware.trace import keys

if TYPE_CHECKING:
    from mlflow.entities.trace_info import TraceInfo

LIMIT = 100_000
"""Traces that are read at most, unless another limit is given."""

_MAX_COST = 1e15
"""US dollars that a trace costs at most: what is more is none, and is no number that adds up."""

_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "total_tokens")


@dataclass(frozen=True, slots=True)
class Figures:
    """The traces that have something in common, counted. Times are those that 50 % and 95 % of them did not exceed.

    Attributes:
        name: What they have in common, such as a user's id; empty for those that have none.
        requests: How many there are.
        errors: How many of them are errors.
        p50_milliseconds: Half of them took no longer.
        p95_milliseconds: 95 % of them took no longer.
        input_tokens: Tokens that went into models, cached ones included.
        output_tokens: Tokens that came out.
        cached_tokens: Those of the input that came from a provider's cache.
        total_tokens: Both together, as they were reported.
        cost: US dollars, of the traces that MLflow could price; None if there is none.
        unpriced: Traces with tokens and without a price.
        rated: The share of traces that a person rated.
        rated_well: The share of these ratings that are good; None if there is none.
    """

    name: str
    requests: int
    errors: int
    p50_milliseconds: int | None
    p95_milliseconds: int | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    total_tokens: int
    cost: float | None
    unpriced: int
    rated: float
    rated_well: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of stored traces.

    Attributes:
        by: What the traces were grouped by.
        rows: The figures of each group, the one with most requests first.
        traces: How many traces were read.
        is_cut: Whether there are more, older ones, which are not counted: the limit was reached.
    """

    by: str
    rows: list[Figures]
    traces: int
    is_cut: bool


def summary(
    *,
    by: str = "route",
    session_id: str | None = None,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    route: str | None = None,
    status: int | None = None,
    since: datetime | timedelta | None = None,
    until: datetime | timedelta | None = None,
    errors_only: bool = False,
    slower_than: float | None = None,
    experiment: str | None = None,
    limit: int | None = None,
    user_id_hmac_key: str | None = None,
    request_id: str | None = None,
    good_from: float = 1.0,
) -> Summary:
    """Count the traces that meet all conditions.

    Args:
        by: ``route``, ``user``, ``session``, ``model`` or ``tag:NAME``.
        session_id: As for `traces.find`, as are the others.
        user_id: The user id.
        tags: Tags of the traces.
        route: The route's template.
        status: The HTTP status code.
        since: The request came then or later.
        until: The request came before that.
        errors_only: True: only errors.
        slower_than: Seconds.
        experiment: An experiment's name or id.
        limit: Traces that are read at most, the newest; 100,000 by default.
        user_id_hmac_key: What pseudonyms are made with.
        request_id: The request id.
        good_from: The lowest number that is a good rating.

    Raises:
        ValueError: As `traces.find` does, and if there is no such ``by``.
        ConnectionProblem: As `traces.find` does.
    """
    from mlflow_middleware.traces import find

    name_of = grouping(by)
    limit = LIMIT if limit is None else limit
    found = find(
        request_id=request_id,
        session_id=session_id,
        user_id=user_id,
        tags=tags,
        route=route,
        status=status,
        since=since,
        until=until,
        errors_only=errors_only,
        slower_than=slower_than,
        experiment=experiment,
        limit=limit + 1 if limit > 0 else limit,
        user_id_hmac_key=user_id_hmac_key,
    )
    return _counted(found, by, name_of, limit, good_from)


def grouping(by: str) -> Callable[[TraceInfo], str | None]:
    """Return what finds the group of a trace.

    Raises:
        ValueError: There is no such grouping.
    """
    kind, _, tag = by.partition(":")
    if kind == "tag" and tag:
        return lambda trace: trace.tags.get(tag)
    if by not in _GROUPINGS:
        raise ValueError(f"by must be {', '.join(_GROUPINGS)} or tag:NAME, not {by!r}")
    return _GROUPINGS[by]


def name_of(trace: TraceInfo) -> str:
    """Return the route of a trace, with its method; of a trace that is no request's, its name."""
    return trace.tags.get(keys.NAME) or trace.tags.get("http.route") or ""


def known(trace: TraceInfo, key: str) -> str | None:
    """Return session or user of a trace, which may be in either place."""
    found: str | None = trace.trace_metadata.get(key) or trace.tags.get(key)
    return found


_GROUPINGS: dict[str, Callable[[TraceInfo], str | None]] = {
    "route": name_of,
    "user": lambda trace: known(trace, keys.USER),
    "session": lambda trace: known(trace, keys.SESSION),
    "model": lambda trace: trace.tags.get(keys.MODELS),
}


@dataclass(slots=True)
class _Group:
    """The traces of one group, as far as they have come."""

    errors: int = 0
    requests: int = 0
    times: array[int] = field(default_factory=lambda: array("q"))
    tokens: Counter[str] = field(default_factory=Counter)
    cost: float | None = None
    unpriced: int = 0
    rated: int = 0
    ratings: int = 0
    good: int = 0

    def add(self, trace: TraceInfo, good_from: float) -> None:
        """Count one more."""
        self.requests += 1
        self.errors += trace.state.value == "ERROR"
        if trace.execution_duration is not None:
            self.times.append(trace.execution_duration)
        used, price = tokens_of(trace), cost_of(trace)
        self.tokens.update(used)
        self.unpriced += bool(used) and price is None
        if price is not None:
            self.cost = (self.cost or 0.0) + price
        values = [rating.value for rating in ratings_of(trace) if rating.is_human]
        self.rated += bool(values)
        self.ratings += len(values)
        self.good += sum(is_good(value, good_from) for value in values)

    def figures(self, name: str) -> Figures:
        """What they come to."""
        times = sorted(self.times)
        read, written, cached, total = (self.tokens[key] for key in _TOKENS)
        return Figures(
            name=name,
            requests=self.requests,
            errors=self.errors,
            p50_milliseconds=_percentile(times, 0.50),
            p95_milliseconds=_percentile(times, 0.95),
            input_tokens=read,
            output_tokens=written,
            cached_tokens=cached,
            total_tokens=total,
            cost=self.cost,
            unpriced=self.unpriced,
            rated=self.rated / self.requests,
            rated_well=self.good / self.ratings if self.ratings else None,
        )


def _counted(
    found: Iterable[TraceInfo], by: str, name_of: Callable[[TraceInfo], str | None], limit: int, good_from: float
) -> Summary:
    groups: dict[str, _Group] = {}
    count, is_cut = 0, False
    for trace in found:
        if count == limit:
            is_cut = True
            break
        count += 1
        groups.setdefault(name_of(trace) or "", _Group()).add(trace, good_from)
    rows = [group.figures(name) for name, group in groups.items()]
    return Summary(by, sorted(rows, key=lambda row: (-row.requests, row.name)), count, is_cut)


def tokens_of(trace: TraceInfo) -> dict[str, int]:
    """Return the tokens that a trace took; empty if that is not known."""
    used = _object(trace.trace_metadata.get(keys.TOKEN_USAGE))
    return {key: value for key in _TOKENS if type(value := used.get(key)) is int}


def cost_of(trace: TraceInfo) -> float | None:
    """Return what a trace cost in US dollars; None if MLflow has not priced it."""
    cost = _object(trace.trace_metadata.get(keys.TRACE_COST)).get("total_cost")
    if not isinstance(cost, int | float) or isinstance(cost, bool):
        return None
    return float(cost) if 0 <= cost <= _MAX_COST else None


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _percentile(ordered: Sequence[int], share: float) -> int | None:
    """Return the smallest value that this share of the values does not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None
