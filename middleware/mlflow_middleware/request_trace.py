"""The current request's trace, from anywhere inside the request: handlers, generators, background tasks.

::

    from mlflow_middleware.request_trace import annotate

    annotate(user_id=claims["sub"], session_id=body.chat_id, tags={"plan": "pro"})
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, overload

from mlflow_middleware import delivery, mlflow_bridge
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.identity import Identity, clean_text
from mlflow_middleware.propagation import baggage_header
from mlflow_middleware.request import continuing, defaults, http_errors, keeping, routes
from mlflow_middleware.request.activation import current_request
from mlflow_middleware.request.carrying import carried
from mlflow_middleware.request.jobs import Given, JobTrace
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.settings import MAX_TAG_VALUE, Settings

__all__ = [
    "REQUEST_KEY",
    "SETTINGS_KEY",
    "JobTrace",
    "RequestTrace",
    "annotate",
    "carry",
    "continue_trace",
    "current",
    "drop_trace",
    "job_trace",
    "keep_trace",
    "outbound_headers",
    "start",
]

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("mlflow_middleware")

REQUEST_KEY = "mlflow_middleware.request_trace"
"""Where an ASGI scope or a WSGI environ holds the trace that was opened for it: one request, one trace."""

SETTINGS_KEY = "mlflow_middleware.settings"
"""Where an ASGI scope or a WSGI environ holds the settings of the middleware around it, whether it is traced or not."""


def current() -> RequestTrace | None:
    """The trace of the request that this code runs in."""
    return current_request.get()


def annotate(
    *,
    user_id: str | None = None,
    session_id: str | Sequence[str] | None = None,
    request_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    metadata: Mapping[str, object] | None = None,
    route: str | None = None,
    exception: BaseException | None = None,
) -> None:
    """Say more of the current request; from anywhere inside it. Outside a request, also in a thread of the app's own to
    which nobody has carried it (see `carry`), it does nothing; the log says so once, at debug.

    Args:
        user_id: Who asked; beats the header and ``identify``. Stored as a pseudonym where ``user_id_hmac_key`` is set.
        session_id: The conversation; beats the header and ``identify``. A list, from the outermost session to the
            innermost, is stored as ``a/b/c``.
        request_id: The request's id; beats the header.
        tags: Trace tags, for search. Values become text, control characters are replaced.
        metadata: Trace metadata: like tags, but it can not be changed later.
        route: The template of the route, such as ``/chats/{id}``, not the path; beats what the framework tells. At most
            250 characters.
        exception: What the app, or its framework, has caught and answers; an error of the trace. An HTTP exception of
            a web framework is none: the status of its answer decides.
    """
    trace = current()
    if trace is not None:
        _annotate(trace, Identity(request_id, session_id, user_id), tags or {}, metadata or {})
        if route is not None:
            _say_route(trace, route)
        if exception is not None:
            _say_exception(trace, exception)
    else:
        _say_that_nothing_is_annotated()


@functools.cache
def _say_that_nothing_is_annotated() -> None:
    logger.debug(
        "annotate() called outside a request, it does nothing there; to call it in another thread, carry the request "
        "to it with mlflow_middleware.request_trace.carry (logged once)",
        stack_info=True,
    )


@guarded
def _annotate(trace: RequestTrace, given: Identity, tags: Mapping[str, object], metadata: Mapping[str, object]) -> None:
    trace.annotate(given, _texts(tags), _texts(metadata))


@guarded
def _say_route(trace: RequestTrace, route: str) -> None:
    routes.say(trace, route)


@guarded
def _say_exception(trace: RequestTrace, exception: BaseException) -> None:
    if http_errors.status_of(exception) is None:
        trace.failed(exception)


def drop_trace() -> None:
    """Send no trace of the current request, nor the spans opened inside it; `delivery.stats()` counts it. To be called
    before the answer is complete. `keep_trace` undoes it. Outside a request it does nothing.
    """
    if trace := current():
        keeping.drop(trace.record)


def keep_trace() -> None:
    """Keep the trace of the current request, whatever `sample_ratio`, `keep` and `exclude` say at its end; also after
    `drop_trace`. Outside a request, and in one that was excluded when it arrived, it does nothing.
    """
    if trace := current():
        keeping.keep(trace.record)


def outbound_headers() -> dict[str, str]:
    """Headers that carry this request's identity to the next service: ``traceparent``, the three ids and ``baggage``.

    The ids go under the names of the three header settings, the user id as it came (the next service applies its
    own ``user_id_hmac_key``). An id that is not plain ASCII is left out there: HTTP clients refuse such values. W3C
    ``baggage`` holds ``session.id`` and ``user.id``, percent-encoded, whatever they consist of, and nothing else.
    Outside a request the answer is empty.
    """
    trace = current()
    return (trace and _outbound(trace)) or {}


@guarded
def _outbound(trace: RequestTrace) -> dict[str, str]:
    settings, who = trace.settings, trace.identity
    ids = {
        settings.request_id_header: who.request_id,
        settings.session_id_header: who.session_id,
        settings.user_id_header: who.user_id,
    }
    headers = {name: value for name, value in ids.items() if value and value.isascii()}
    if baggage := baggage_header({"session.id": who.session_id, "user.id": who.user_id}):
        headers["baggage"] = baggage
    if span := mlflow_bridge.current_span():
        headers["traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-01"
    return headers


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs in the context of the request that this is called in; for thread pools.

    Each call has a copy of that context of its own, so that ``executor.map`` can run several at once. It is for
    threads that the request waits for: spans opened after its end are lost, and `job_trace` is for those. A function
    that leaves the process needs `outbound_headers` and `job_trace`, too.

    ::

        executor.map(carry(search), queries)
    """
    return carried(function)


@overload
def job_trace(headers: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def job_trace(
    headers: Mapping[Any, Any] | str | None = None,
    *,
    name: str | None = None,
    inputs: object = None,
    settings: Settings | None = None,
    **options: object,
) -> JobTrace: ...
def job_trace(
    headers: Any = None,
    *,
    name: str | None = None,
    inputs: object = None,
    settings: Settings | None = None,
    **options: object,
) -> Any:
    """Trace a job: work that outlives the request that asked for it, or that no request asked for.

    A context manager, and a decorator of functions, sync and async. A job has a trace of its own, with the session,
    user and request id of the request that asked for it, and a link to that request's span. `annotate`,
    `outbound_headers` and MLflow's functions work inside. Arguments and result are its inputs and outputs, as bodies
    are a request's. An error is recorded and raised again. A worker's process begins to deliver by itself.

    ::

        @app.task  # Celery; sent by summarize.apply_async((text,), headers=outbound_headers())
        @job_trace
        def summarize(text): ...

    Args:
        headers: What `outbound_headers` gave to whoever asked for the job, or the name of the argument that holds it.
            By default it is looked for in Celery's headers and RQ's ``meta``; else it is that of the request that this
            runs in, if any. A job without has no session.
        name: The job's name, by default that of the function.
        inputs: The job's inputs, by default the function's arguments; something that JSON can hold.
        settings: The options; by default those of the request or middleware around, else of the environment.
        options: What ``Settings`` knows, as keywords.

    Raises:
        SettingsError: An option is unknown or ill-typed.
        TypeError: The function is a generator, or ``headers`` is neither a mapping nor a name.
    """
    if not (headers is None or callable(headers) or isinstance(headers, Mapping | str)):
        raise TypeError(f"headers must be a mapping or the name of an argument, not {type(headers).__name__}")
    if options and settings is None:
        settings = defaults.loaded(**options)
    given = Given(None if callable(headers) else headers, name, inputs, settings, outbound_headers)
    return JobTrace(given)(headers) if callable(headers) else JobTrace(given)


@contextmanager
def continue_trace(token: str | None) -> Iterator[None]:
    """Add the spans opened inside to the trace of an earlier request, as children of its root.

    The request's own trace is linked to it. A token that is missing, wrong or expired is logged, and the spans stay in
    the request's own trace.

    ::

        with continue_trace(request.headers.get("X-MLflow-Trace-Token")):
            run_the_approved_tool()

    Args:
        token: What the earlier answer carried as ``X-MLflow-Trace-Token``, where ``trace_token_secret`` is set.
    """
    undo = continuing.begin(token)
    try:
        yield
    finally:
        if undo:
            guarded(undo)()


def around(known: Mapping[str, object], method: str, path: str) -> RequestTrace | None:
    """Return the trace of a request that an app around this one has opened, if any.

    Args:
        known: The environ or the scope of this app. A bridge between WSGI and ASGI may keep the outer one in it.
        method: The request's.
        path: The request's, with the path that this app is mounted at.
    """
    outer: Any = known.get("asgi.scope") or known.get("wsgi_environ") or known
    if isinstance(found := known.get(REQUEST_KEY) or outer.get(REQUEST_KEY), RequestTrace):
        return found
    outer_trace = current()
    if outer_trace is None or outer_trace.exchange.request is None:  # it has ended; only its context goes on
        return None
    return outer_trace if (outer_trace.exchange.method, outer_trace.exchange.path) == (method, path) else None


def start(settings: Settings) -> None:
    """Called once by each middleware when it is built: from here on, finished traces are delivered."""
    defaults.remember(settings)
    if settings.enabled:
        _start(settings)


@guarded
def _start(settings: Settings) -> None:
    delivery.start(settings)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Tags or metadata as a server stores them."""
    pairs = ((clean_text(key), clean_text(value, MAX_TAG_VALUE)) for key, value in values.items())
    return {key: value for key, value in pairs if key and value is not None}
