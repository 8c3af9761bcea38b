"""Feedback of users on what an app answered, stored as an assessment of the trace.

``answer`` serves one ``POST`` of a feedback route, for whatever framework; the adapters have such a route ready. It
blocks, so an async framework calls it in a thread::

    from mlflow_middleware import feedback, wsgi

    answered = feedback.answer(wsgi.exchange_of(environ), body)  # for ASGI: asgi.exchange_of(scope)
    answered.status, answered.headers, answered.body

The body is JSON: exactly one of ``trace_id``, ``client_request_id`` and ``session_id``; ``value`` (true, false, a
number or text); and, if wanted, ``name``, ``comment`` and ``metadata``. The caller's session and user are read as those
of every request are. Who may vote: whoever knows the trace id (128 random bits); or a request id or session id together
with the same session or user; with ``feedback_secret`` set, whoever shows the token that the response carried, and
nobody else.

The answer is 200 with the trace id; 403 a token that is missing or not good for this; 404 unknown, or not yours; 413
too large; 415 no JSON; 422 bad input; 503 the server is away, or too many votes come at a time or on one trace. All but
the first say in ``detail`` what is wrong. A second vote of a user on the same name replaces the first, as MLflow does
it: the first stays, marked as not valid. Users without an id count as one, called anonymous; where feedback is signed,
each of their tokens is one. Feedback on a session is stored as MLflow's own evaluation stores it: on the first trace of
the session, with ``mlflow.trace.session`` in its metadata.

The body has to be declared as JSON. That protects a route that knows its users by a cookie: a form of another site
cannot send such a body, and a script there needs the app's CORS permission first.

The route's own requests are no traces.
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
"""Seconds that a vote waits for this process's own delivery, before it asks the server again."""

WAIT = 5.0
"""Seconds that a vote waits for its trace by default, where that holds no thread of the app."""

MIN_PAUSE, MAX_PAUSE = 0.05, 0.5
"""Seconds between two questions whether a trace is stored by now."""

_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json", re.ASCII | re.IGNORECASE)

T = TypeVar("T")


class Accepted(BaseModel):
    """The answer to feedback that was taken."""

    trace_id: str = BodyField(description="The trace that it is stored with.")


class Problem(BaseModel):
    """The answer to feedback that was not taken."""

    detail: str = BodyField(description="What is wrong, and what is allowed.")


PROBLEMS = {
    403: "Feedback has to be signed, and the token is missing or not valid for this",
    404: "No such trace, request or session is stored, or it is not yours",
    413: "The body is too large",
    415: "The content type is not JSON",
    422: "The body is not valid feedback",
    503: "The tracking server is unavailable, or there are too many votes at once",
}
"""Status -> its meaning, for a description of the route."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a feedback route answers.

    Attributes:
        status: The HTTP status.
        body: JSON.
        headers: Names and values, ``Content-Type`` among them.
    """

    status: int
    body: bytes
    headers: dict[str, str] = field(
        default_factory=lambda: {"Content-Type": "application/json", "Cache-Control": "no-store"}
    )


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_body(stream: _Readable) -> bytes:
    """Read a body up to a byte more than is allowed, which is enough to refuse it."""
    body = b""
    while len(body) <= MAX_BODY and (chunk := stream.read(MAX_BODY + 1 - len(body))):
        body += chunk
    return body


def answer(exchange: Exchange, body: bytes, settings: Settings | None = None) -> Answer:
    """Serve one request of a feedback route. It blocks.

    Args:
        exchange: The request.
        body: Its body, or the first `MAX_BODY` + 1 bytes of it.
        settings: Those of the middleware; by default those of the one around this request, whether it traces it or
            not, else what the environment says.

    Raises:
        SettingsError: There is no middleware around, and the environment sets an option wrong.
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
    """Store feedback of a caller who is known to be allowed to. It blocks.

    Args:
        feedback: What is said.
        user_id: Who says it, as it is to be stored.
        wait: Seconds to wait for a trace that is not stored yet.

    Returns:
        The id of the trace that it is stored with.

    Raises:
        FeedbackError: 404, no such trace is stored; 503, the server is away.
    """
    info = _wait_for(lambda: next(iter(store.find(feedback)), None), wait)
    if info is None:
        raise store.unknown(feedback)
    return store.store(feedback, info, user_id)


def settings_of_route(options: Mapping[str, object]) -> Callable[[Settings | None], Settings | None]:
    """What a route with options of its own works with: they are laid over those of the middleware around it.

    Args:
        options: The route's own.

    Returns:
        A function from the settings of the middleware around a request, if there is one, to what `answer` takes.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    if not options:
        return lambda around: around
    own = Settings.load(**options)
    return lambda around: own.laid_over(around, options) if around else own


def _settings_around(exchange: Exchange) -> Settings | None:
    """Those of a middleware that passes this request by."""
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
    """How long a vote waits. By default, where its thread is one of few, on WSGI or in Django, only for a trace
    that this process has just finished: nobody holds a thread with ids that they make up.
    """
    if settings.feedback_wait is not None:
        return settings.feedback_wait
    request = caller.exchange.request  # Django has one thread for all its views of a process, on ASGI as well
    is_cheap = isinstance(request, Mapping) and "asgi" in request
    return WAIT if is_cheap or (trace_id is not None and delivery.is_recent(trace_id)) else 0.0


def _found_for(feedback: Feedback, caller: RequestTrace) -> store.TraceInfo | None:
    """The trace that feedback is about, if the caller knows its id or has its session or user.

    Nobody is told of a trace that is another's: the answer to a guess is that of an id that does not exist.
    """
    session_id, user_id = caller.identity.session_id, caller.user_id
    for info in store.find(feedback):
        is_callers = store.is_same(info, keys.SESSION, session_id) or store.is_same(info, keys.USER, user_id)
        if feedback.trace_id or is_callers:
            return info
    return None


def _signed(token: str, feedback: Feedback, user_id: str | None, settings: Settings) -> Token:
    """What the caller's token says, as far as that can be checked without the server."""
    if not token:
        raise FeedbackError(403, f"the {feedback_token.HEADER} of the response is missing")
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
    """The trace to store feedback with: the token's own, or the first of its session where that is the same user's."""
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
    """Look until there is something, or the time is over; the first time in vain, hurry our own delivery."""
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
