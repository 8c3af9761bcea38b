"""The middleware class for Django, under WSGI and ASGI, sync and async."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import got_request_exception
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from mlflow_middleware import delivery, mlflow_bridge, request_trace
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.django import configuration
from mlflow_middleware.django.responses import is_answered, observe_response
from mlflow_middleware.django.streaming import record_error, silence_stream
from mlflow_middleware.exchange import MAX_TARGET, Exchange, bounded
from mlflow_middleware.request import routes
from mlflow_middleware.request.asgi_response import deliver
from mlflow_middleware.request.chunks import ReadBody, deliver_before_the_end
from mlflow_middleware.request.leaving import is_cancelled
from mlflow_middleware.request.patterns import readable
from mlflow_middleware.request.waiting import in_thread
from mlflow_middleware.request_trace import RequestTrace, current
from mlflow_middleware.settings import Settings, SettingsError
from mlflow_middleware.wsgi import environ_headers

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class TraceMiddleware:
    """Django middleware that records every request as one MLflow trace.

    Args:
        get_response: The next middleware, or the view.

    Raises:
        ImproperlyConfigured: An option in ``settings.MLFLOW_MIDDLEWARE`` is unknown or ill-typed.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        try:
            self.settings = configuration.load()
        except SettingsError as error:
            raise ImproperlyConfigured(str(error)) from None
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(_failed, dispatch_uid="mlflow_middleware")
        request_trace.start(self.settings)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        if not self.settings.enabled:
            return self.get_response(request)
        if self._is_async:
            return self._serve_async(request)
        return self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        if around := _around(request):
            try:
                return cast(HttpResponseBase, self.get_response(request))
            finally:
                _set_route(request, around)
        trace = _opened(request, self.settings)
        if trace is None:
            undo = mlflow_bridge.silence()
            try:
                return silence_stream(cast(HttpResponseBase, self.get_response(request)))
            finally:
                undo()
        trace.activate()
        try:
            response = cast(HttpResponseBase, self.get_response(request))
            _set_route(request, trace)
            observe_response(response, trace)
            if is_answered(response):
                deliver_before_the_end(trace)
            return response
        except BaseException as error:
            _end_with(request, trace, error)
            deliver_before_the_end(trace)
            raise
        finally:
            trace.deactivate()

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        if around := _around(request):
            try:
                return await cast(Awaitable[HttpResponseBase], self.get_response(request))
            finally:
                _set_route(request, around)
        trace = _opened(request, self.settings)
        if trace is None:
            undo = mlflow_bridge.silence()
            try:
                return silence_stream(await cast(Awaitable[HttpResponseBase], self.get_response(request)))
            finally:
                undo()
        trace.activate()
        try:
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
            _set_route(request, trace)
            if is_cancelled():
                trace.disconnected()
            if trace.settings.asks_the_framework:  # may query the database, which Django allows only in threads
                await sync_to_async(observe_response)(response, trace)
            else:
                observe_response(response, trace)
            if trace.settings.flush_each_request and is_answered(response):
                await in_thread(deliver)
            return response
        except BaseException as error:
            _end_with(request, trace, error)
            raise
        finally:
            trace.deactivate()


@guarded
def _opened(request: HttpRequest, settings: Settings) -> RequestTrace | None:
    """Open the trace of a request; return None if it is excluded."""
    exchange = exchange_of(request)
    if reason := settings.reason_to_exclude(exchange.path, exchange.method, exchange.headers):
        delivery.leave_out(reason)
        return None
    trace = RequestTrace.open(exchange, settings)
    _watch_body(request, trace)
    return trace


@guarded
def _watch_body(request: HttpRequest, trace: RequestTrace) -> None:
    """Record the request's body as it is read; an outer middleware may already have read it."""
    if hasattr(request, "_body"):
        trace.received(request.body)
    elif hasattr(request, "_stream"):
        request._stream = cast(Any, ReadBody(request._stream, trace))


@guarded
def _around(request: HttpRequest) -> RequestTrace | None:
    """Return the trace that an ASGI or WSGI middleware around the whole project opened for this request, if any."""
    known: Mapping[str, Any] = getattr(request, "scope", None) or request.META
    return request_trace.around(known, request.method or "", request.path[:MAX_TARGET])


@guarded
def _set_route(request: HttpRequest, trace: RequestTrace) -> None:
    if match := getattr(request, "resolver_match", None):
        is_mounted = trace.exchange.request is not request
        prefix = routes.below(trace, request.META.get("SCRIPT_NAME", "")) if is_mounted else ""
        routes.learn(trace, prefix + readable(match.route))


def _end_with(request: HttpRequest, trace: RequestTrace, error: BaseException) -> None:
    _set_route(request, trace)
    record_error(trace, error)
    trace.finish()


def _failed(sender: object, **_: Any) -> None:
    """Record an unhandled exception, which Django turns into a 500."""
    trace, error = current(), sys.exc_info()[1]
    if trace is not None and error is not None:
        trace.failed(error)


def exchange_of(request: HttpRequest) -> Exchange:
    """Build an exchange from a Django request."""
    meta = request.META
    port = str(meta.get("SERVER_PORT", ""))
    headers, held = bounded(environ_headers(meta))
    path, query_string = request.path[:MAX_TARGET], meta.get("QUERY_STRING", "")[:MAX_TARGET]
    return Exchange(
        method=request.method or "",
        path=path,
        headers=headers,
        query_string=query_string,
        scheme=request.scheme or "http",
        http_version=meta.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        server=(meta.get("SERVER_NAME", ""), int(port) if port.isdecimal() else None),
        client=meta.get("REMOTE_ADDR", "") or "",
        request=request,
        held=held + len(path) + len(query_string),
    )
