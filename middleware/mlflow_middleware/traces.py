"""Find stored traces: by request, session, user, tag, route, status and time.

::

    from datetime import timedelta
    from mlflow_middleware import traces

    for trace in traces.find(user_id="jane", errors_only=True, since=timedelta(hours=1)):
        print(trace.trace_id, trace.request_preview)

    for session in traces.sessions(user_id="jane", limit=3):
        print(session)  # who said what

    traces.get(trace_id)  # with its spans; right after the answer, too

    traces.summary(by="user").rows  # requests, errors, times, tokens, cost and ratings of each

A trace is found when what is stored is exactly the value that was asked for, whatever characters that has: the server
is asked with a filter that no value can leave, and each trace it finds is compared once more here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.experiment import find_experiment
from mlflow_middleware.delivery.rest import ConnectionProblem, ask
from mlflow_middleware.delivery.stored import get
from mlflow_middleware.identity import clean_lines, clean_text, pseudonym
from mlflow_middleware.settings import Settings
from mlflow_middleware.summaries import Figures, Summary, summary
from mlflow_middleware.trace import keys

if TYPE_CHECKING:
    from mlflow.entities.trace_info import TraceInfo

__all__ = ["ConnectionProblem", "Figures", "Session", "Summary", "Turn", "find", "get", "sessions", "summary"]

PAGE = 500
"""Traces that a server gives in one answer at most."""

TIMEOUT = 60.0
"""Seconds that a server may take for one page."""

Moment = datetime | timedelta
"""A time (without a time zone: local time), or how long ago."""

MAX_TEXT = 1000
"""Characters of a turn that are printed."""

_SEARCH = "/api/3.0/mlflow/traces/search"

_TAG_NAME = re.compile(r"[/\w.\- :]{1,250}")
"""What MLflow allows as a tag's name (mlflow/utils/validation.py)."""

_NAMED_ROUTE = re.compile(r"[A-Z]+ .+")

_UNQUOTABLE = frozenset("'\"`\\%")
"""MLflow's filters have no escape for a quote (mlflow/utils/search_utils.py); for its parser, sqlparse, a backslash
before the closing quote is one. In a pattern a percent sign is a wildcard for any number of characters."""

_NOT_TAGS = frozenset(
    ("end_time", "execution_time", "mlflow.linkedprompts", "name", "prompt", "run_id", "text", "timestamp")
)
"""Tag names, in lower case, that MLflow's search takes for something else (``SearchTraceUtils.SEARCH_KEY_TO_...``)."""


def find(
    *,
    request_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    route: str | None = None,
    status: int | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    errors_only: bool = False,
    slower_than: float | None = None,
    experiment: str | None = None,
    limit: int | None = 100,
    user_id_hmac_key: str | None = None,
) -> Iterator[TraceInfo]:
    """Find traces that meet all conditions, newest first, on the server that ``MLFLOW_TRACKING_URI`` names.

    Args:
        request_id: The request id, of any length.
        session_id: The session (conversation) id, as it is stored.
        user_id: The user id, as it is stored, or what the pseudonym was made of.
        tags: Tags that the trace has, with exactly these values.
        route: The route's template, ``/chats/{chat_id}``, or with its method, ``POST /chats/{chat_id}``.
        status: The HTTP status code of the answer.
        since: The request came then or later.
        until: The request came before that.
        errors_only: True: only traces whose state is ERROR.
        slower_than: Seconds; the request took longer.
        experiment: An experiment's name or id; None for the one that the environment names.
        limit: Traces at most; None for all. They are fetched as they are asked for, up to 500 at a time.
        user_id_hmac_key: The option of the app that stored them; None for that of the environment,
            ``MLFLOW_MIDDLEWARE_USER_ID_HMAC_KEY``. Where there is one, the user is looked up by the pseudonym.

    Returns:
        MLflow's own trace infos: ids, times, state, previews, tags, metadata and assessments, but no spans.

    Raises:
        ValueError: A value cannot be looked up: an empty id, an impossible tag name, a negative duration.
        ConnectionProblem: The server is away, refuses the credentials or has no such experiment. While iterating, too.
    """
    _check_limit(limit)
    given = {"request_id": request_id, "session_id": session_id, "user_id": user_id, "route": route}
    wanted = [_entry(name, value, user_id_hmac_key) for name, value in given.items() if value is not None]
    if status is not None:
        wanted.append(_Entry("tags", "http.status_code", str(int(status))))
    wanted += [_Entry("tags", _tag_name(key), _text(f"tag {key!r}", value)) for key, value in (tags or {}).items()]
    clauses = list(_bounds(since, until, slower_than))
    if errors_only:
        clauses.append("attributes.status = 'ERROR'")
    tracking_uri = mlflow_bridge.client.tracking_uri()
    experiment_id = find_experiment(tracking_uri, experiment)
    return _search(tracking_uri, experiment_id, clauses, wanted, limit)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said in a conversation.

    Attributes:
        role: Which side.
        speaker: The user's id where it is known; else the role.
        text: What was said, as far as the trace's preview goes (1,000 characters).
        trace_id: The trace of the request that this was part of.
    """

    role: Literal["user", "assistant"]
    speaker: str
    text: str
    trace_id: str

    def __str__(self) -> str:
        return f"{clean_text(self.speaker)}: {clean_lines(self.text, MAX_TEXT)}"


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation; as text, one paragraph for each turn.

    Attributes:
        session_id: Its id.
        traces: The traces of its requests, oldest first.
    """

    session_id: str
    traces: list[TraceInfo]

    @property
    def turns(self) -> list[Turn]:
        """Who said what, in that order."""
        return [turn for trace in self.traces for turn in _turns(trace)]

    def __str__(self) -> str:
        return "\n".join(map(str, self.turns))


def sessions(
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    experiment: str | None = None,
    limit: int | None = 20,
    user_id_hmac_key: str | None = None,
) -> Iterator[Session]:
    """Find sessions of which a trace meets all conditions, each with all of its traces; the one last active first.

    Args:
        session_id: As for `find`, as are the others.
        user_id: The user id.
        tags: Tags of the trace.
        since: The request came then or later.
        until: The request came before that.
        experiment: An experiment's name or id.
        limit: Sessions at most; None for all.
        user_id_hmac_key: What pseudonyms are made with.

    Raises:
        ValueError: As `find` does.
        ConnectionProblem: As `find` does.
    """
    _check_limit(limit)
    found = find(
        session_id=session_id,
        user_id=user_id,
        tags=tags,
        since=since,
        until=until,
        experiment=experiment,
        limit=None,
        user_id_hmac_key=user_id_hmac_key,
    )
    return _sessions(found, session_id, experiment, limit)


def _sessions(
    found: Iterator[TraceInfo], session_id: str | None, experiment: str | None, limit: int | None
) -> Iterator[Session]:
    known: set[str] = set()
    for trace in found:
        name = trace.trace_metadata.get(keys.SESSION)
        if not name or name in known:
            continue
        known.add(name)
        newest_first = list(find(session_id=name, experiment=experiment, limit=None))
        yield Session(name, sorted(newest_first, key=lambda each: each.request_time))
        if session_id is not None or len(known) == limit:
            return


def _turns(trace: TraceInfo) -> Iterator[Turn]:
    if trace.request_preview:
        user = trace.trace_metadata.get(keys.USER) or "user"
        yield Turn("user", user, trace.request_preview, trace.trace_id)
    if trace.response_preview:
        yield Turn("assistant", "assistant", trace.response_preview, trace.trace_id)


# --- the query -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tag or a metadata entry with exactly this value."""

    place: Literal["tags", "metadata"]
    key: str
    value: str

    def exactly(self) -> str | None:
        """A filter that a server understands as this; None where there is no way to write it."""
        if self._is_taken_for_something_else or "\\" in self.value or not self.value.isprintable():
            return None
        quote = next((quote for quote in "'\"" if quote not in self.value), None)
        return f"{self.place}.`{self.key}` = {quote}{self.value}{quote}" if quote else None

    def roughly(self) -> str | None:
        """A filter that lets such traces through, and others: with wildcards for the characters that it cannot have."""
        if self._is_taken_for_something_else:
            return None
        pattern = "".join("_" if char in _UNQUOTABLE or not char.isprintable() else char for char in self.value)
        return f"{self.place}.`{self.key}` LIKE '{pattern}'"

    @property
    def _is_taken_for_something_else(self) -> bool:
        return self.place == "tags" and self.key.lower() in _NOT_TAGS

    def is_in(self, trace: TraceInfo) -> bool:
        """Whether a trace has it."""
        place = trace.tags if self.place == "tags" else trace.trace_metadata
        return bool(place.get(self.key) == self.value)


def _search(
    tracking_uri: str, experiment_id: str, clauses: list[str], wanted: list[_Entry], limit: int | None
) -> Iterator[TraceInfo]:
    filters = [entry.exactly() for entry in wanted]
    exact = [*clauses, *filter(None, filters)]
    inexact = [entry for entry, known in zip(wanted, filters, strict=True) if not known]
    rough = [clause for entry in inexact if (clause := entry.roughly())]
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
    query: dict[str, object] = {
        "locations": [location],
        "filter": " AND ".join([*exact, *rough]),
        "order_by": ["timestamp_ms DESC"],
        "max_results": PAGE if inexact else min(limit or PAGE, PAGE),
    }
    given: set[str] = set()  # a page begins with what the one before it ended with, when a trace has come meanwhile
    while True:
        status, answer = ask(tracking_uri, "POST", _SEARCH, json=query, timeout=TIMEOUT)
        if status == 400 and rough:  # older servers know no LIKE here
            rough, query["filter"] = [], " AND ".join(exact)
            continue
        if status != 200:
            raise ConnectionProblem(f"the tracking server answered {status} {answer.get('message', '')}".rstrip())
        for trace in mlflow_bridge.found_traces(answer):
            if trace.trace_id in given or not all(entry.is_in(trace) for entry in wanted):
                continue
            given.add(trace.trace_id)
            yield trace
            if len(given) == limit:
                return
        if not answer.get("next_page_token"):
            return
        query["page_token"] = answer["next_page_token"]


def _entry(name: str, value: str, user_id_hmac_key: str | None) -> _Entry:
    """Where a trace holds what an argument of `find` asks for."""
    if not _text(name, value):
        raise ValueError(f"{name} must not be empty")
    if name == "request_id":
        return _Entry("tags", keys.CLIENT_REQUEST_ID, value)
    if name == "session_id":
        return _Entry("metadata", keys.SESSION, value)
    if name == "user_id":
        return _Entry("metadata", keys.USER, _stored_user(value, user_id_hmac_key))
    return _Entry("tags", keys.NAME if _NAMED_ROUTE.fullmatch(value) else "http.route", value)


def _bounds(since: Moment | None, until: Moment | None, slower_than: float | None) -> Iterator[str]:
    if since is not None:
        yield f"attributes.timestamp_ms >= {_milliseconds('since', since)}"
    if until is not None:
        yield f"attributes.timestamp_ms < {_milliseconds('until', until)}"
    if slower_than is not None:
        if not 0 <= slower_than < math.inf:
            raise ValueError(f"slower_than must be 0 or more seconds, not {slower_than}")
        yield f"attributes.execution_time_ms > {int(slower_than * 1000)}"


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {value!r}")
    if "\x00" in value:
        raise ValueError(f"{name} must not contain a NUL character")
    return value


def _tag_name(name: str) -> str:
    if not _TAG_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a tag name: MLflow allows letters, digits, spaces and /_.-: up to 250 characters"
        )
    return name


def _stored_user(user_id: str, key: str | None) -> str:
    """The user id as the middleware stores it."""
    hmac_key = key.encode() if key else Settings.load().hmac_key
    return pseudonym(clean_text(user_id) or user_id, hmac_key) if hmac_key else user_id


def _milliseconds(name: str, moment: Moment) -> int:
    """Since the epoch."""
    if isinstance(moment, timedelta):
        if moment < timedelta():
            raise ValueError(f"{name} must be a time, or how long ago that was, not {moment}")
        moment = datetime.now(timezone.utc) - moment
    return math.ceil(moment.timestamp() * 1000)
