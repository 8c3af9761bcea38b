"""A trace that a caller has begun, and that a request, or a span, here has joined: it stays the caller's.

The spans go there at once. What the trace's row holds is the caller's to tell; only if it has told nothing after a
while, it gets what is known here, so that it can be found. Whoever knows a trace's id can send it in ``traceparent``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.replies import TRACES, RetryableError
from mlflow_middleware.delivery.rest import ConnectionProblem, ask
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.record import JOINED, SPANS_ONLY

WAIT = 10.0
"""Seconds that a caller has to tell of its own trace, unless somebody flushes: it mostly ends soon after us."""

FILLED = "mlflow_middleware.filled"
"""Metadata of a trace whose row we have filled: the time of the request that it tells of."""

_MARK = f'"{JOINED}"'.encode()
_PREVIEWS = ("request_preview", "response_preview")
_OPEN = ("IN_PROGRESS", "STATE_UNSPECIFIED", None)

Stored = Callable[[str], dict[str, Any] | None]
"""Tells what is stored of a trace, by its id: its info as in MLflow's API, empty for none, None if that is unknown."""


class LaterInfo:
    """The info of a joined trace whose spans are on their way, as it waits until it is its turn.

    Args:
        tracking_uri: Where it goes.
        encoded: The trace.
    """

    def __init__(self, tracking_uri: str, encoded: EncodedTrace) -> None:
        self.tracking_uri = tracking_uri
        self.encoded = encoded
        self.since = encoded.since

    def is_complete(self) -> bool:
        """Whether it need not wait."""
        return False

    def forget_contents(self) -> None:
        """Do nothing: it is encoded."""


def is_joined(trace: EncodedTrace) -> bool:
    """Whether a trace is a caller's."""
    return _MARK in trace.info and not trace.is_addition


def parted(trace: EncodedTrace) -> EncodedTrace:
    """Leave a trace its spans only; returns its info, to be sent later."""
    trace.has_info = True
    return EncodedTrace(
        trace.trace_id,
        trace.experiment_id,
        trace.otlp,
        trace.info,
        trace.prompts,
        supplement=True,
        has_spans=True,
        since=trace.since,
    )


def info_for(stored: Stored, experiment_id: str, trace: EncodedTrace) -> bytes | None:
    """The trace info to send; None if there is nothing to be told of a caller's trace."""
    info = trace.info_for(experiment_id)
    if _MARK not in info:
        return info
    body = json.loads(info)
    ours = body["trace"]["trace_info"]
    kind = (ours.get("trace_metadata") or {}).pop(JOINED, None)
    if kind is None:
        return info
    theirs = None if kind == SPANS_ONLY else stored(trace.trace_id)
    if theirs is None or _is_told(theirs):
        return None
    _leave_theirs(ours, theirs)
    return json.dumps(body).encode()


def _is_told(theirs: dict[str, Any]) -> bool:
    """Whether the caller has told of its trace; what was filled in by such as us is not that."""
    filled = (theirs.get("trace_metadata") or {}).get(FILLED)
    return theirs.get("state") not in _OPEN and filled != theirs.get("request_time")


def _leave_theirs(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Let an info say what is stored already."""
    metadata, tags = ours["trace_metadata"], ours.setdefault("tags", {})
    for key in (keys.USER, keys.SESSION):
        known = [(theirs.get(place) or {}).get(key) for place in ("trace_metadata", "tags")]
        if any(known):
            metadata[key] = tags[key] = known[0] or known[1]
    for key in _PREVIEWS:
        if theirs.get(key):
            ours.pop(key, None)
    if FILLED in (theirs.get("trace_metadata") or {}):
        ours["request_time"] = theirs["request_time"]
    metadata[FILLED] = ours["request_time"]


def stored_at(tracking_uri: str) -> Stored:
    """What tells of a server's traces."""

    def stored(trace_id: str) -> dict[str, Any] | None:
        try:
            status, answer = ask(tracking_uri, "GET", f"{TRACES}/{trace_id}")
        except ConnectionProblem as problem:
            raise RetryableError(str(problem), needs_help=problem.needs_help) from problem
        if status == 404:
            return {}
        found: dict[str, Any] | None = answer.get("trace", {}).get("trace_info") if status == 200 else None
        return found

    return stored
