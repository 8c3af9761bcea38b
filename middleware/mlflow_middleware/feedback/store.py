"""Storage of feedback: it finds the trace on the tracking server and creates an assessment there.

It uses the REST API (https://mlflow.org/docs/latest/api_reference/rest-api.html), because the slim package
``mlflow-tracing`` lacks some of MLflow's functions for this.
"""

from __future__ import annotations

import functools
import logging
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Literal

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal.route_settings import experiments_of
from mlflow_middleware.delivery.experiment import find_experiment, resolve_experiment
from mlflow_middleware.delivery.rest import MAX_LINE, ConnectionProblem, ask, check_address, is_server, printable
from mlflow_middleware.feedback.body import Feedback, FeedbackError
from mlflow_middleware.identity import clean_text
from mlflow_middleware.request.defaults import settings_here
from mlflow_middleware.trace import keys

ANONYMOUS = "anonymous"
"""The source of feedback from users without an id."""

MAX_TRIES = 5
"""Maximum number of attempts to replace a vote while the same user sends further ones."""

TIMEOUT = 2.0
"""Seconds to wait for each response of the server; meanwhile a vote blocks a thread of the app."""

MAX_VOTES = 500
"""Maximum number of assessments of a trace, including replaced ones; each makes the trace slower to read."""

_TRACES = "/api/3.0/mlflow/traces"

logger = logging.getLogger("mlflow_middleware.feedback")

TraceInfo = dict[str, Any]
"""A trace info as in the server's JSON."""


def find(feedback: Feedback) -> list[TraceInfo]:
    """Return the traces that feedback may refer to, most likely first."""
    if feedback.trace_id:
        info = trace(feedback.trace_id)
        return [info] if info else []
    if request_id := feedback.client_request_id:
        found = _search(f"tags.{keys.CLIENT_REQUEST_ID} = '{request_id}'", "DESC")
        same = [info for info in found if tags(info).get(keys.CLIENT_REQUEST_ID) == request_id]
        return sorted(same, key=lambda info: "http.status_code" not in tags(info))  # the request before its jobs
    session_id = feedback.session_id or ""
    quote = '"' if "'" in session_id else "'"
    found = _search(f"metadata.`{keys.SESSION}` = {quote}{session_id}{quote}", "ASC", limit=1)
    return [info for info in found if is_same(info, keys.SESSION, session_id)]


def trace(trace_id: str) -> TraceInfo | None:
    """Return a trace, or None if it is not stored."""
    answered = _ask("GET", f"{_TRACES}/{trace_id}")
    return answered["trace"]["trace_info"] if answered else None


def _search(query: str, order: Literal["ASC", "DESC"], limit: int = 20) -> list[TraceInfo]:
    """Search the experiments of this process's traces."""
    places = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": each}} for each in _experiments()]
    asked = {"locations": places, "filter": query, "order_by": [f"timestamp_ms {order}"], "max_results": limit}
    answered = _ask("POST", f"{_TRACES}/search", json=asked) or {}
    found: list[TraceInfo] = answered.get("traces", [])
    return found


def _experiments() -> list[str]:
    """Return the ids of the environment's experiment and of those that the options specify, as far as they exist."""
    uri = _server()
    try:
        found = [resolve_experiment(uri, timeout=TIMEOUT)]
    except ConnectionProblem as problem:
        raise _unavailable(str(problem)) from None
    for each in experiments_of(settings_here()):
        with suppress(ConnectionProblem):  # no trace is there yet, or its traces went to the environment's
            found.append(_experiment(uri, each))
    return list(dict.fromkeys(found))


@functools.lru_cache(maxsize=64)
def _experiment(uri: str, experiment: str) -> str:
    return find_experiment(uri, experiment, timeout=TIMEOUT)


def store(feedback: Feedback, info: TraceInfo, user_id: str | None) -> str:
    """Store feedback; it replaces earlier feedback of the same user under the same name.

    Returns:
        The id of the trace that the feedback is stored with.

    Raises:
        FeedbackError: 404, the trace is gone; 403, it has too many votes; 503, the server is unreachable.
    """
    trace_id: str = info["trace_id"]
    if len(info.get("assessments", ())) >= MAX_VOTES:
        raise FeedbackError(403, "this trace already has the maximum number of ratings")
    source_id = user_id or ANONYMOUS
    assessment = _assessment(feedback, source_id)
    found: TraceInfo | None = info
    for _ in range(MAX_TRIES):
        if found is None:
            break
        if earlier := _votes(found, feedback, source_id):
            assessment["overrides"] = earlier[-1]["assessment_id"]
        if _ask("POST", f"{_TRACES}/{trace_id}/assessments", json={"assessment": assessment}) is not None:
            _keep_the_newest(feedback, trace_id, source_id)
            return trace_id
        found = trace(trace_id)  # the trace is gone, or the assessment to replace
        assessment.pop("overrides", None)
    raise unknown(feedback)


def _assessment(feedback: Feedback, source_id: str) -> dict[str, Any]:
    """Return an assessment (https://github.com/mlflow/mlflow/blob/master/mlflow/protos/assessments.proto)."""
    now = datetime.now(timezone.utc).isoformat()
    of_session = {keys.SESSION: feedback.session_id} if feedback.session_id else {}
    return {
        "assessment_name": feedback.name,
        "source": {"source_type": "HUMAN", "source_id": source_id},
        "feedback": {"value": feedback.value},
        "metadata": {**feedback.metadata, **of_session},
        "create_time": now,
        "last_update_time": now,
        "valid": True,
        **({"rationale": feedback.comment} if feedback.comment else {}),
    }


def _keep_the_newest(feedback: Feedback, trace_id: str, source_id: str) -> None:
    """Delete all but the newest of simultaneous votes, none of which could know of the others.

    MLflow restores the assessment that a deleted one had replaced, so this may take several rounds.
    """
    for _ in range(MAX_TRIES):
        older = _votes(trace(trace_id) or {}, feedback, source_id)[:-1]
        if not older:
            return
        for each in older:
            _ask("DELETE", f"{_TRACES}/{trace_id}/assessments/{each['assessment_id']}")


def _votes(info: TraceInfo, feedback: Feedback, source_id: str) -> list[dict[str, Any]]:
    """Return a user's current feedback under a name, oldest first."""
    is_of_session = feedback.session_id is not None
    found = [
        each
        for each in info.get("assessments", ())
        if each.get("assessment_name") == feedback.name
        and each.get("valid", True)
        and "feedback" in each
        and each.get("source", {}).get("source_type") == "HUMAN"
        and each.get("source", {}).get("source_id") == source_id
        and (keys.SESSION in each.get("metadata", {})) == is_of_session
    ]
    return sorted(found, key=_age)


def _age(assessment: dict[str, Any]) -> tuple[str, str]:
    """Return a sort key by creation time, which may lack trailing zeros."""
    return str(assessment.get("create_time", "")).rstrip("Z"), str(assessment.get("assessment_id"))


def is_same(info: TraceInfo, key: str, value: str | None) -> bool:
    """Return whether a trace has this session or user."""
    return value is not None and (info.get("trace_metadata") or {}).get(key) == value


def user_of(info: TraceInfo) -> str | None:
    """Return a trace's user, if any."""
    found: str | None = (info.get("trace_metadata") or {}).get(keys.USER)
    return found


def unknown(feedback: Feedback) -> FeedbackError:
    """Return the error for an id that was not found."""
    what = "trace" if feedback.trace_id else "request" if feedback.client_request_id else "session"
    return FeedbackError(404, f"no {what} with this id is stored")


def tags(info: TraceInfo) -> dict[str, str]:
    """Return a trace's tags."""
    return info.get("tags") or {}


def _ask(method: str, path: str, **kwargs: Any) -> dict[str, Any] | None:
    """Send a request to the tracking server; return None if the resource does not exist."""
    uri = _server()
    try:
        check_address(uri)
        status, answered = ask(uri, method, path, timeout=TIMEOUT, **kwargs)
    except ConnectionProblem as problem:
        raise _unavailable(str(problem)) from problem
    if status == 404 and answered.get("error_code") == "RESOURCE_DOES_NOT_EXIST":
        return None
    if status != 200:
        raise _unavailable(f"{method} {path} was answered with {status} {answered.get('message', '')}")
    return answered


def _server() -> str:
    """Return the address of the tracking server; votes are not stored in a database or a folder directly."""
    uri = mlflow_bridge.client.tracking_uri()
    if is_server(uri):
        return uri
    raise _unavailable(
        f"MLFLOW_TRACKING_URI={printable(uri)} is not the address of a server, which feedback needs; "
        "start one with `mlflow server` in the same folder, and set MLFLOW_TRACKING_URI=http://localhost:5000",
        "feedback needs an MLflow server, and MLFLOW_TRACKING_URI is not the address of one",
    )


def _unavailable(why: str, detail: str = "the tracking server is unavailable, try again later") -> FeedbackError:
    logger.warning("feedback not stored, the user is asked to try again: %s", clean_text(why, MAX_LINE))
    return FeedbackError(503, detail)
