"""Access to the current request's trace from handlers, generators and background tasks.

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
"""The key of an ASGI scope or a WSGI environ for the request's trace: one request, one trace."""

SETTINGS_KEY = "mlflow_middleware.settings"
"""The key of an ASGI scope or a WSGI environ for the settings of its middleware, whether it is traced or not."""


def current() -> RequestTrace | None:
    """Return the trace of the current request, or None if there is no traced request."""
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
    """Add information to the current request's trace, from anywhere inside the request. Outside a request, or in a
    thread that the request was not carried to (see `carry`), it does nothing; this is logged once, at level DEBUG.

    Args:
        user_id: The user's id; overrides the header and ``identify``. Stored as a pseudonym if ``user_id_hmac_key`` is
            set.
        session_id: The conversation's id; overrides the header and ``identify``. A list, from the outermost session to
            the innermost, is stored as ``a/b/c``.
        request_id: The request's id; overrides the header.
        tags: Trace tags, for search. Values are converted to text; control characters are replaced by U+FFFD.
        metadata: Trace metadata: like tags, but immutable once stored.
        route: The template of the route, such as ``/chats/{id}``, not the path; overrides the framework's. At most 250
            characters.
        exception: An exception that the app or its framework has caught and answers; it makes the trace an error. An
            HTTP exception of a web framework does not: there the status of the response decides.
    """
    trace = current()
    if trace is not None:
        _annotate(trace, Identity(request_id, session_id, user_id), tags or {}, metadata or {})
        if route is not None:
            _set_route(trace, route)
        if exception is not None:
            _record_exception(trace, exception)
    else:
        _log_ignored_annotation()


@functools.cache
def _log_ignored_annotation() -> None:
    logger.debug(
        "annotate() called outside a request, it does nothing there; to call it in another thread, carry the request "
        "to it with mlflow_middleware.request_trace.carry (logged once)",
        stack_info=True,
    )


@guarded
def _annotate(trace: RequestTrace, given: Identity, tags: Mapping[str, object], metadata: Mapping[str, object]) -> None:
    trace.annotate(given, _texts(tags), _texts(metadata))


@guarded
def _set_route(trace: RequestTrace, route: str) -> None:
    routes.set_explicitly(trace, route)


@guarded
def _record_exception(trace: RequestTrace, exception: BaseException) -> None:
    if http_errors.status_of(exception) is None:
        trace.failed(exception)


def drop_trace() -> None:
    """Drop the trace of the current request and all spans opened inside it; `delivery.stats()` counts it. Must be
    called before the response is complete. `keep_trace` undoes it. Outside a request it does nothing.
    """
    if trace := current():
        keeping.drop(trace.record)


def keep_trace() -> None:
    """Keep the trace of the current request, even if `sample_ratio`, `keep` or `exclude` would leave it out at its end,
    or after `drop_trace`. Outside a request, and in one that was excluded on arrival, it does nothing.
    """
    if trace := current():
        keeping.keep(trace.record)


def outbound_headers() -> dict[str, str]:
    """Return headers that carry this request's identity to the next service: ``traceparent``, the ids and ``baggage``.

    The ids are sent under the names of the three header settings, the user id as received (the next service applies its
    own ``user_id_hmac_key``). An id that is not plain ASCII is left out, since HTTP clients reject it; the W3C header
    ``baggage`` carries ``session.id`` and ``user.id`` percent-encoded, whatever their characters, and nothing else.
    Outside a request the result is empty.
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
    """Wrap a function so that it runs in the context of the current request, for thread pools.

    Each call runs in its own copy of the context, so that ``executor.map`` can run several at once. Use it for threads
    that the request waits for: spans opened after the request's end are lost; use `job_trace` for work that outlives
    it. Work in another process needs `outbound_headers` and `job_trace`.

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

    A context manager, and a decorator for sync and async functions. A job has its own trace, with the session, user
    and request id of the request that asked for it, and a link to that request's span. `annotate`, `outbound_headers`
    and MLflow's functions work inside. Arguments and result become its inputs and outputs, subject to the same options
    as bodies. An error is recorded and re-raised. Delivery starts by itself in a worker process.

    ::

        @app.task  # Celery; sent by summarize.apply_async((text,), headers=outbound_headers())
        @job_trace
        def summarize(text): ...

    Args:
        headers: The result of `outbound_headers` in the request that asked for the job, or the name of the argument
            that holds it. By default it is read from Celery's headers or RQ's ``meta``, else taken from the current
            request, if any. A job without it has no session.
        name: The job's name; by default that of the function.
        inputs: The job's inputs, JSON-serializable; by default the function's arguments.
        settings: The settings; by default those of the current request or the middleware, else of the environment.
        options: Options of ``Settings``, as keywords; instead of ``settings``.

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

    The request's own trace links to that trace. If the token is missing, wrong or expired, this is logged and the spans
    stay in the request's own trace.

    ::

        with continue_trace(request.headers.get("X-MLflow-Trace-Token")):
            run_the_approved_tool()

    Args:
        token: The header ``X-MLflow-Trace-Token`` of the earlier response, which ``trace_token_secret`` enables.
    """
    undo = continuing.begin(token)
    try:
        yield
    finally:
        if undo:
            guarded(undo)()


def around(known: Mapping[str, object], method: str, path: str) -> RequestTrace | None:
    """Return the trace that an enclosing app has opened for the same request, if any.

    Args:
        known: The environ or the scope of this app. A bridge between WSGI and ASGI may keep the outer one in it.
        method: The request's method.
        path: The request's path, including the path that this app is mounted at.
    """
    outer: Any = known.get("asgi.scope") or known.get("wsgi_environ") or known
    if isinstance(found := known.get(REQUEST_KEY) or outer.get(REQUEST_KEY), RequestTrace):
        return found
    outer_trace = current()
    if outer_trace is None or outer_trace.exchange.request is None:  # it has ended, and only its context lives on
        return None
    return outer_trace if (outer_trace.exchange.method, outer_trace.exchange.path) == (method, path) else None


def start(settings: Settings) -> None:
    """Start to deliver finished traces; each middleware calls this once, when it is created."""
    defaults.remember(settings)
    if settings.enabled:
        _start(settings)


@guarded
def _start(settings: Settings) -> None:
    delivery.start(settings)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return tags or metadata as a server stores them."""
    pairs = ((clean_text(key), clean_text(value, MAX_TAG_VALUE)) for key, value in values.items())
    return {key: value for key, value in pairs if key and value is not None}
