"""A trace that a caller has begun, and that a request has joined: it keeps the user, session and previews that it has.

Whoever knows a trace's id can send it in ``traceparent``; where that is trusted, what the server has is asked first.
"""

from __future__ import annotations

import json
from typing import Any

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.replies import TRACES
from mlflow_middleware.delivery.rest import ConnectionProblem, ask
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.record import JOINED

_MARK = f'"{JOINED}"'.encode()
_PREVIEWS = ("request_preview", "response_preview")


def info_for(tracking_uri: str, experiment_id: str, trace: EncodedTrace) -> bytes:
    """The trace info to send: of a trace that was joined, without what the server has already."""
    info = trace.info_for(experiment_id)
    return _less(tracking_uri, trace.trace_id, info) if _MARK in info else info


def _less(tracking_uri: str, trace_id: str, info: bytes) -> bytes:
    body = json.loads(info)
    ours = body["trace"]["trace_info"]
    metadata, tags = ours.get("trace_metadata") or {}, ours.get("tags") or {}
    if metadata.pop(JOINED, None) is None:
        return info
    theirs = _stored(tracking_uri, trace_id)
    for key in (keys.USER, keys.SESSION):
        if theirs is None or any((theirs.get(place) or {}).get(key) for place in ("trace_metadata", "tags")):
            metadata.pop(key, None)
            tags.pop(key, None)
    for key in _PREVIEWS:
        if theirs is None or theirs.get(key):
            ours.pop(key, None)
    return json.dumps(body).encode()


def _stored(tracking_uri: str, trace_id: str) -> dict[str, Any] | None:
    """What the server has of a trace; None where it does not tell."""
    try:
        status, answer = ask(tracking_uri, "GET", f"{TRACES}/{trace_id}")
    except ConnectionProblem:
        return None
    if status == 404:
        return {}
    found: dict[str, Any] | None = answer.get("trace", {}).get("trace_info") if status == 200 else None
    return found
