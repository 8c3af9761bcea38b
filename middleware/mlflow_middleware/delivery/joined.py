"""Traces that a caller has begun and that a request or a span here has joined; they stay the caller's.

The spans are sent at once. The trace's info is the caller's to send; only if the caller has sent none after a while,
we send ours, so that the trace can be found. Anyone who knows a trace's id can send it in ``traceparent``.
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
"""Seconds to wait for the caller's info, unless someone flushes: callers mostly end soon after us."""

FILLED = "mlflow_middleware.filled"
"""Metadata of a trace whose info is ours: the time of the described request."""

_MARK = f'"{JOINED}"'.encode()
_PREVIEWS = ("request_preview", "response_preview")
_OPEN = ("IN_PROGRESS", "STATE_UNSPECIFIED", None)

Stored = Callable[[str], dict[str, Any] | None]
"""Returns the stored info of a trace by its id, as in MLflow's API: empty if there is none, None if it is unknown."""


class LaterInfo:
    """The queued info of a joined trace whose spans are sent earlier.

    Args:
        tracking_uri: The destination.
        encoded: The trace.
    """

    def __init__(self, tracking_uri: str, encoded: EncodedTrace) -> None:
        self.tracking_uri = tracking_uri
        self.encoded = encoded
        self.since = encoded.since

    def is_complete(self) -> bool:
        """Return False: the info has to wait."""
        return False

    def forget_contents(self) -> None:
        """Do nothing: the trace is already encoded."""


def is_joined(trace: EncodedTrace) -> bool:
    """Return whether a trace is a caller's."""
    return _MARK in trace.info and not trace.is_addition


def parted(trace: EncodedTrace) -> EncodedTrace:
    """Reduce a trace to its spans; return its info, to be sent later."""
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
    """Return the trace info to send; None if a caller's trace needs no info from us."""
    info = trace.info_for(experiment_id)
    if _MARK not in info:
        return info
    body = json.loads(info)
    ours = body["trace"]["trace_info"]
    kind = (ours.get("trace_metadata") or {}).pop(JOINED, None)
    if kind is None:
        return info
    theirs = None if kind == SPANS_ONLY else stored(trace.trace_id)
    if theirs is None or _has_callers_info(theirs):
        return None
    _keep_stored(ours, theirs)
    return json.dumps(body).encode()


def _has_callers_info(theirs: dict[str, Any]) -> bool:
    """Return whether the caller has sent the info of its trace; infos from middleware such as ours do not count."""
    filled = (theirs.get("trace_metadata") or {}).get(FILLED)
    return theirs.get("state") not in _OPEN and filled != theirs.get("request_time")


def _keep_stored(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Keep the stored values in an info."""
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
    """Return a function that reads a server's stored infos."""

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
