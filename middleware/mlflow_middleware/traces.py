"""Find stored traces: by request, session, user, tag, route, status and time.

::

    from datetime import timedelta
    from mlflow_middleware import traces

    for trace in traces.find(user_id="jane", errors_only=True, since=timedelta(hours=1)):
        print(trace.trace_id, trace.request_preview)

    for session in traces.sessions(user_id="jane", limit=3):
        print(session)  # the conversation as text

    traces.get(trace_id)  # with its spans, even right after the response

    traces.summary(by="user").rows  # requests, errors, durations, tokens, cost and ratings per user

A trace is found if its stored value equals the requested one exactly, whatever its characters: values are quoted so
that none can widen the filter, and each trace that the server finds is compared again here.
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
from mlflow_middleware.delivery.rest import ConnectionProblem, ask, unexpected
from mlflow_middleware.delivery.stored import get
from mlflow_middleware.identity import clean_lines, clean_text, pseudonym
from mlflow_middleware.settings import Settings
from mlflow_middleware.summaries import Figures, Summary, summary
from mlflow_middleware.trace import keys

if TYPE_CHECKING:
    from mlflow.entities.trace_info import TraceInfo

__all__ = ["ConnectionProblem", "Figures", "Session", "Summary", "Turn", "find", "get", "sessions", "summary"]

PAGE = 500
"""Maximum number of traces that a server returns in one response."""

TIMEOUT = 60.0
"""Seconds to wait for one page."""

Moment = datetime | timedelta
"""A point in time (local time if it has no time zone), or a duration before now."""

MAX_TEXT = 1000
"""Maximum number of characters of a turn that are printed."""

_SEARCH = "/api/3.0/mlflow/traces/search"

_TAG_NAME = re.compile(r"[/\w.\- :]{1,250}")
"""Tag names that MLflow allows (mlflow/utils/validation.py)."""

_NAMED_ROUTE = re.compile(r"[A-Z]+ .+")

_UNQUOTABLE = frozenset("'\"`\\%")
"""MLflow's filters have no escape for a quote (mlflow/utils/search_utils.py); its parser, sqlparse, treats a
backslash before the closing quote as one. In a pattern, a percent sign matches any number of characters."""

_NOT_TAGS = frozenset(
    ("end_time", "execution_time", "mlflow.linkedprompts", "name", "prompt", "run_id", "text", "timestamp")
)
"""Lower-case tag names that MLflow's search interprets as other fields (``SearchTraceUtils.SEARCH_KEY_TO_...``)."""


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
        session_id: The session (conversation) id, as stored.
        user_id: The user id, as stored or as it was before it was replaced by a pseudonym.
        tags: Tags of the trace, with exactly these values.
        route: The route's template, ``/chats/{chat_id}``, or with its method, ``POST /chats/{chat_id}``.
        status: The HTTP status code of the response.
        since: The request arrived at or after this time.
        until: The request arrived before this time.
        errors_only: True: only traces with state ERROR.
        slower_than: The request took longer, in seconds.
        experiment: An experiment's name or id; None for the one that the environment names.
        limit: Maximum number of traces; None for all. They are fetched during iteration, up to 500 at a time.
        user_id_hmac_key: The option of the app that stored the traces; None for the environment variable
            ``MLFLOW_MIDDLEWARE_USER_ID_HMAC_KEY``. If a key is set, the user is searched by pseudonym.

    Returns:
        MLflow's own trace infos: ids, times, state, previews, tags, metadata and assessments, but no spans.

    Raises:
        ValueError: A value cannot be searched for, such as an empty id, an invalid tag name or a negative duration.
        ConnectionProblem: The server is unreachable, or the credentials or the experiment are wrong; also on iteration.
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
    """A message in a conversation.

    Attributes:
        role: ``"user"`` or ``"assistant"``.
        speaker: The user's id if known, else the role.
        text: The message, cut to the trace's preview (1,000 characters).
        trace_id: The id of the trace of the request that contains the message.
    """

    role: Literal["user", "assistant"]
    speaker: str
    text: str
    trace_id: str

    def __str__(self) -> str:
        return f"{clean_text(self.speaker)}: {clean_lines(self.text, MAX_TEXT)}"


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation; ``str()`` gives one paragraph per turn.

    Attributes:
        session_id: Its id.
        traces: The traces of its requests, oldest first.
    """

    session_id: str
    traces: list[TraceInfo]

    @property
    def turns(self) -> list[Turn]:
        """The messages of user and assistant, oldest first."""
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
    """Find sessions with a trace that meets all conditions, each with all its traces; last active first.

    Args:
        session_id: The session id; this and the other conditions are as for `find`.
        user_id: The user id.
        tags: Tags of the trace.
        since: The request arrived at or after this time.
        until: The request arrived before this time.
        experiment: An experiment's name or id.
        limit: Maximum number of sessions to return; None for all.
        user_id_hmac_key: The key of the pseudonyms.

    Raises:
        ValueError: As for `find`.
        ConnectionProblem: As for `find`.
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
    """A condition: a tag or a metadata entry with exactly this value."""

    place: Literal["tags", "metadata"]
    key: str
    value: str

    def exactly(self) -> str | None:
        """Return a filter that matches exactly these traces; None if MLflow's syntax cannot express it."""
        if self._is_taken_for_something_else or "\\" in self.value or not self.value.isprintable():
            return None
        quote = next((quote for quote in "'\"" if quote not in self.value), None)
        return f"{self.place}.`{self.key}` = {quote}{self.value}{quote}" if quote else None

    def roughly(self) -> str | None:
        """Return a filter that matches these traces and maybe others: wildcards replace impossible characters."""
        if self._is_taken_for_something_else:
            return None
        pattern = "".join("_" if char in _UNQUOTABLE or not char.isprintable() else char for char in self.value)
        return f"{self.place}.`{self.key}` LIKE '{pattern}'"

    @property
    def _is_taken_for_something_else(self) -> bool:
        return self.place == "tags" and self.key.lower() in _NOT_TAGS

    def is_in(self, trace: TraceInfo) -> bool:
        """Return whether a trace has the entry."""
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
    given: set[str] = set()  # if traces arrive meanwhile, a page repeats the end of the one before
    while True:
        status, answer = ask(tracking_uri, "POST", _SEARCH, json=query, timeout=TIMEOUT)
        if status == 400 and rough:  # older servers do not support LIKE here
            rough, query["filter"] = [], " AND ".join(exact)
            continue
        if status != 200:
            raise ConnectionProblem(unexpected(tracking_uri, status, answer))
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
    """Return the condition for an argument of `find`."""
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
    """Return the user id as the middleware stores it: a pseudonym if a key is set."""
    hmac_key = key.encode() if key else Settings.load().hmac_key
    return pseudonym(clean_text(user_id) or user_id, hmac_key) if hmac_key else user_id


def _milliseconds(name: str, moment: Moment) -> int:
    """Return a moment as milliseconds since the epoch."""
    if isinstance(moment, timedelta):
        if moment < timedelta():
            raise ValueError(f"{name} must be a time, or how long ago that was, not {moment}")
        moment = datetime.now(timezone.utc) - moment
    return math.ceil(moment.timestamp() * 1000)
