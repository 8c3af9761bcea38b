"""User feedback on an app's responses, stored as assessments of their traces.

``answer`` serves one ``POST`` of a feedback route in any framework; the adapters contain ready-made routes. It blocks,
so an async framework calls it in a thread::

    from mlflow_middleware import feedback, wsgi

    answered = feedback.answer(wsgi.exchange_of(environ), body)  # for ASGI: asgi.exchange_of(scope)
    answered.status, answered.headers, answered.body

The body is JSON: exactly one of ``trace_id``, ``client_request_id`` and ``session_id``; ``value`` (true, false, a
number or text); and optionally ``name``, ``comment`` and ``metadata``. The caller's session and user are read as for
any request. A caller may vote with the trace id (128 random bits), or with a request id or session id if it belongs to
the same session or user. With ``feedback_secret`` set, only the token from the response authorizes a vote.

The response is 200 with the trace id, or an error with a ``detail``: 403 the token is missing or not valid for this
trace; 404 the id is unknown, or belongs to somebody else; 413 the body is too large; 415 the body is not JSON; 422 the
input is invalid; 503 the server is unreachable, or there are too many votes at once or on one trace.

A second vote of a user under the same name replaces the first, as in MLflow: the first stays, marked as not valid. All
users without an id share the name ``anonymous``; with signed feedback, each of their tokens counts as a user. Feedback
on a session is stored like that of MLflow's own evaluation: on the first trace of the session, with
``mlflow.trace.session`` in its metadata.

The body must be declared as JSON. This protects a route that identifies its users by a cookie: a form on another site
cannot send such a body, and a script there needs the app's CORS permission first.

Requests to the route itself are not traced.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic import Field as BodyField

from mlflow_middleware import delivery
from mlflow_middleware._internal import clock, feedback_token
from mlflow_middleware._internal.feedback_token import BadToken, Token
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.feedback import store
from mlflow_middleware.feedback.body import MAX_BODY, Feedback, FeedbackError, described
from mlflow_middleware.feedback.limits import rates, slots
from mlflow_middleware.request_trace import SETTINGS_KEY, RequestTrace, current
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace import keys

__all__ = [
    "MAX_BODY",
    "PROBLEMS",
    "Accepted",
    "Answer",
    "Feedback",
    "FeedbackError",
    "Problem",
    "answer",
    "log",
    "read_body",
    "settings_of_route",
]

HURRY = 0.5
"""Seconds that a vote waits for this process's own delivery before it queries the server again."""

WAIT = 5.0
"""Default of the seconds that a vote waits for its trace, if that does not block a thread of the app."""

MIN_PAUSE, MAX_PAUSE = 0.05, 0.5
"""Seconds between two queries for a trace that is not stored yet."""

_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json", re.ASCII | re.IGNORECASE)

T = TypeVar("T")


class Accepted(BaseModel):
    """Response to accepted feedback."""

    trace_id: str = BodyField(description="The trace that it is stored with.")


class Problem(BaseModel):
    """Response to rejected feedback."""

    detail: str = BodyField(description="What is wrong, and what is allowed.")


PROBLEMS = {
    403: "Feedback has to be signed, and the token is missing or not valid for this",
    404: "No such trace, request or session is stored, or it is not yours",
    413: "The body is too large",
    415: "The content type is not JSON",
    422: "The body is not valid feedback",
    503: "The tracking server is unavailable, or there are too many votes at once",
}
"""Status -> its meaning, for the route's OpenAPI schema."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of a feedback route.

    Attributes:
        status: The HTTP status.
        body: The JSON body.
        headers: Names and values of the headers, including ``Content-Type``.
    """

    status: int
    body: bytes
    headers: dict[str, str] = field(
        default_factory=lambda: {"Content-Type": "application/json", "Cache-Control": "no-store"}
    )


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_body(stream: _Readable) -> bytes:
    """Read at most `MAX_BODY` + 1 bytes of a body; one byte too many is enough to reject it."""
    body = b""
    while len(body) <= MAX_BODY and (chunk := stream.read(MAX_BODY + 1 - len(body))):
        body += chunk
    return body


def answer(exchange: Exchange, body: bytes, settings: Settings | None = None) -> Answer:
    """Serve one request of a feedback route. It blocks.

    Args:
        exchange: The request.
        body: The request's body, or its first `MAX_BODY` + 1 bytes.
        settings: The settings; by default those of the middleware around this request, whether it traces it or not,
            else those of the environment.

    Returns:
        The response to send.

    Raises:
        SettingsError: There is no middleware around the request, and an option in the environment is wrong.
    """
    trace = current()
    if trace is not None:
        trace.leave_out()
        settings = settings or trace.settings
    settings = settings or _settings_around(exchange) or _settings_of_environment()
    caller = trace if trace is not None and trace.settings is settings else RequestTrace(exchange, settings)
    try:
        feedback = _parse(exchange, body)
        with slots.of_votes():
            trace_id = _vote(feedback, caller, exchange.headers.get(feedback_token.HEADER.lower(), ""), settings)
    except FeedbackError as error:
        refused = Answer(error.status, json.dumps({"detail": error.detail}).encode())
        if error.status == 503:
            refused.headers["Retry-After"] = "1"
        return refused
    return Answer(200, json.dumps({"trace_id": trace_id}).encode())


def log(feedback: Feedback, user_id: str | None = None, wait: float = 0.0) -> str:
    """Store feedback of an authorized caller. It blocks.

    Args:
        feedback: The feedback.
        user_id: The id to store as the source of the feedback; None for ``anonymous``.
        wait: Seconds to wait for a trace that is not stored yet.

    Returns:
        The id of the trace that the feedback is stored with.

    Raises:
        FeedbackError: 404, no such trace is stored; 403, the trace has too many votes; 503, the server is unreachable.
    """
    info = _wait_for(lambda: next(iter(store.find(feedback)), None), wait)
    if info is None:
        raise store.unknown(feedback)
    return store.store(feedback, info, user_id)


def settings_of_route(options: Mapping[str, object]) -> Callable[[Settings | None], Settings | None]:
    """Combine a route's own options with the settings of the middleware around it.

    Args:
        options: The route's own options, which override the middleware's.

    Returns:
        A function from the settings of the middleware around a request, or None, to the ``settings`` of `answer`.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    if not options:
        return lambda around: around
    own = Settings.load(**options)
    return lambda around: own.laid_over(around, options) if around else own


def _settings_around(exchange: Exchange) -> Settings | None:
    """Return the settings of a middleware that does not trace this request."""
    found = exchange.request.get(SETTINGS_KEY) if isinstance(exchange.request, Mapping) else None
    return found if isinstance(found, Settings) else None


@functools.cache
def _settings_of_environment() -> Settings:
    return Settings.load()


def _parse(exchange: Exchange, body: bytes) -> Feedback:
    if len(body) > MAX_BODY:
        raise FeedbackError(413, f"the body is too large: at most {MAX_BODY} bytes are allowed")
    kind = exchange.headers.get("content-type", "").partition(";")[0].strip()
    if not _JSON_TYPE.fullmatch(kind):
        raise FeedbackError(415, "the body must be JSON, with Content-Type: application/json")
    try:
        return Feedback.model_validate_json(body)
    except ValidationError as error:
        raise FeedbackError(422, described(error)) from None


# --- who may vote ---


def _vote(feedback: Feedback, caller: RequestTrace, token: str, settings: Settings) -> str:
    caller.identify()
    user_id = caller.user_id
    if settings.feedback_keys:
        signed = _signed(token, feedback, user_id, settings)
        seconds = _seconds(signed.trace_id, caller, settings)
        info = _wait_for(lambda: _signed_for(feedback, signed), seconds)
        voter = signed.user_id or feedback_token.voter(token)
    else:
        seconds = _seconds(feedback.trace_id, caller, settings)
        info = _wait_for(lambda: _found_for(feedback, caller), seconds)
        voter = user_id or store.ANONYMOUS
    if info is None:
        raise store.unknown(feedback)
    rates.count(info["trace_id"])
    return store.store(feedback, info, voter)


def _seconds(trace_id: str | None, caller: RequestTrace, settings: Settings) -> float:
    """Return how long a vote waits, in seconds. By default, on WSGI and in Django, where threads are few, only for a
    trace that this process has just finished, so that nobody can block threads with made-up ids.
    """
    if settings.feedback_wait is not None:
        return settings.feedback_wait
    request = caller.exchange.request  # on ASGI, too, Django runs all sync views of a process in one thread
    is_cheap = isinstance(request, Mapping) and "asgi" in request
    return WAIT if is_cheap or (trace_id is not None and delivery.is_recent(trace_id)) else 0.0


def _found_for(feedback: Feedback, caller: RequestTrace) -> store.TraceInfo | None:
    """Return the trace that feedback refers to, if the caller knows its id or shares its session or user.

    A trace of another user is never revealed: the response is that for an unknown id.
    """
    session_id, user_id = caller.identity.session_id, caller.user_id
    for info in store.find(feedback):
        is_callers = store.is_same(info, keys.SESSION, session_id) or store.is_same(info, keys.USER, user_id)
        if feedback.trace_id or is_callers:
            return info
    return None


def _signed(token: str, feedback: Feedback, user_id: str | None, settings: Settings) -> Token:
    """Return the content of the caller's token, verified as far as possible without the server."""
    if not token:
        raise FeedbackError(403, f"the {feedback_token.HEADER} header is missing: send that of the rated response")
    try:
        signed = feedback_token.verify(token, settings.feedback_keys, time.time())
    except BadToken as error:
        raise FeedbackError(403, str(error)) from None
    if feedback.trace_id and feedback.trace_id != signed.trace_id:
        raise FeedbackError(403, "the token is for another trace")
    if user_id and signed.user_id and user_id != signed.user_id:
        raise FeedbackError(403, "the token belongs to another user")
    return signed


def _signed_for(feedback: Feedback, signed: Token) -> store.TraceInfo | None:
    """Return the token's trace or, for a session, its first trace if that belongs to the same user."""
    info = store.trace(signed.trace_id)
    if info is None:
        return None
    if feedback.client_request_id and store.tags(info).get(keys.CLIENT_REQUEST_ID) != feedback.client_request_id:
        raise FeedbackError(403, "the token is for another request")
    if not feedback.session_id:
        return info
    first = next(iter(store.find(feedback)), None) if store.is_same(info, keys.SESSION, feedback.session_id) else None
    if first is None or store.user_of(first) != signed.user_id:
        raise FeedbackError(403, "the token is for another session")
    return first


def _wait_for(look: Callable[[], T], seconds: float) -> T:
    """Look repeatedly until something is found or the time is up; after the first miss, flush this process's traces."""
    found = look()
    if found or not seconds:
        return found
    until, pause = clock.monotonic() + seconds, MIN_PAUSE
    with slots.of_waiting():
        delivery.flush(min(HURRY, seconds))
        while not (found := look()) and (left := until - clock.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(2 * pause, MAX_PAUSE)
    return found
