"""One middleware class for WSGI and ASGI, sync and async."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from mlflow_middleware import mlflow_bridge, request_trace
from mlflow_middleware.django import configuration
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.guard import guarded
from mlflow_middleware.mlflow_bridge import Undo
from mlflow_middleware.request_trace import REQUEST_KEY, RequestTrace, current
from mlflow_middleware.response_headers import join
from mlflow_middleware.settings import SettingsError
from mlflow_middleware.wsgi import ReadBody, environ_headers

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class TraceMiddleware:
    """Make every request of a Django project a trace.

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
            response = cast(HttpResponseBase, self.get_response(request))
            _tell_route(request, around)
            return response
        if self.settings.excludes(request.path):
            undo = mlflow_bridge.silence()
            try:
                return _silent(cast(HttpResponseBase, self.get_response(request)))
            finally:
                undo()
        trace = RequestTrace.open(exchange_of(request), self.settings)
        _watch_body(request, trace)
        trace.activate()
        try:
            return _answered(request, cast(HttpResponseBase, self.get_response(request)), trace)
        except BaseException as error:
            _raised(trace, error)
            raise
        finally:
            trace.deactivate()

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        if around := _around(request):
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
            _tell_route(request, around)
            return response
        if self.settings.excludes(request.path):
            undo = mlflow_bridge.silence()
            try:
                return _silent(await cast(Awaitable[HttpResponseBase], self.get_response(request)))
            finally:
                undo()
        trace = RequestTrace.open(exchange_of(request), self.settings)
        _watch_body(request, trace)
        trace.activate()
        try:
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
            if self.settings.identify:  # it may ask the database who is logged in, which Django allows in threads only
                return await sync_to_async(_answered)(request, response, trace)
            return _answered(request, response, trace)
        except BaseException as error:
            _raised(trace, error)
            raise
        finally:
            trace.deactivate()


@guarded
def _watch_body(request: HttpRequest, trace: RequestTrace) -> None:
    """Tell the trace what is read of the request's body; a middleware around us may have read it already."""
    if hasattr(request, "_body"):
        trace.received(request.body)
    elif hasattr(request, "_stream"):
        request._stream = cast(Any, ReadBody(request._stream, trace))


def _around(request: HttpRequest) -> RequestTrace | None:
    """The trace that the ASGI or WSGI middleware around the whole project has opened for this request, if any."""
    known: Mapping[str, Any] = getattr(request, "scope", None) or request.META
    return known.get(REQUEST_KEY)


@guarded
def _tell_route(request: HttpRequest, trace: RequestTrace) -> None:
    if request.resolver_match:
        trace.exchange.route = f"/{request.resolver_match.route.removeprefix('/')}"


def _raised(trace: RequestTrace, error: BaseException) -> None:
    _blame(trace, error)
    trace.finish()


def _blame(trace: RequestTrace, error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        trace.disconnected()
    else:
        trace.failed(error)


def _answered(request: HttpRequest, response: HttpResponseBase, trace: RequestTrace) -> HttpResponseBase:
    """The response, with our headers; its trace goes to delivery here, or with the last chunk of a stream."""
    _tell_route(request, trace)
    _started(response, trace)
    _add_headers(response, trace)
    _stay_until_closed(response, trace)
    if not isinstance(response, StreamingHttpResponse):
        _sent(response, trace)
        trace.last_byte()
        trace.answered()
    elif getattr(response, "file_to_stream", None):  # to the server as it is, which may have a faster way to send it
        trace.last_byte()
        trace.answered()
    else:
        _wrap(response, trace)
    return response


def _silent(response: HttpResponseBase) -> HttpResponseBase:
    """A response of an excluded path: what makes its chunks is not traced either."""
    if isinstance(response, StreamingHttpResponse) and not getattr(response, "file_to_stream", None):
        _wrap(response, None)
    return response


def _wrap(response: StreamingHttpResponse, trace: RequestTrace | None) -> None:
    chunks = _AsyncChunks if response.is_async else _Chunks
    response.streaming_content = chunks(response.streaming_content, trace)


@guarded
def _started(response: HttpResponseBase, trace: RequestTrace) -> None:
    headers = response.headers
    trace.response_started(response.status_code, headers.get("Content-Type", ""), headers.get("Content-Encoding", ""))


@guarded
def _sent(response: HttpResponseBase, trace: RequestTrace) -> None:
    """The whole of an answer; but for one that a middleware further out has still to render."""
    if getattr(response, "is_rendered", True):
        trace.sent(cast(HttpResponse, response).content)


@guarded
def _add_headers(response: HttpResponseBase, trace: RequestTrace) -> None:
    for name, value, before in vars(response).pop(_HEADERS, ()):  # the app answers with one response twice
        if before is not None:
            response.headers[name] = before
        elif response.headers.get(name) == value:
            del response.headers[name]
    changed = _changed(response, trace.response_headers() or (), "origin" in trace.exchange.headers)
    for name, value, _ in changed:
        response.headers[name] = value
    vars(response)[_HEADERS] = changed


def _changed(
    response: HttpResponseBase, ours: Collection[tuple[str, str]], cross_origin: bool
) -> list[tuple[str, str, str | None]]:
    """The headers that the response gets: name, value, and the app's own value before."""
    if not cross_origin:  # nothing to expose: 10 us less
        return [(name, value, None) for name, value in ours if name not in response.headers]
    own = {name.lower(): value for name, value in response.items()}
    joined = list(response.items())
    join(joined, ours, cross_origin=True)
    return [(name, value, own.get(name.lower())) for name, value in joined if own.get(name.lower()) != value]


_HEADERS = "_mlflow_middleware_headers"
"""A response has our headers here: name, value, and the app's own value before."""


@guarded
def _stay_until_closed(response: HttpResponseBase, trace: RequestTrace) -> None:
    vars(response)["close"] = _Closing(response, trace)


class _Closing:
    """A response's ``close``: what runs there, Django's signal ``request_finished`` included, belongs to the request.

    A cache around us may pickle the response: what it then holds is the response's own ``close``.
    """

    def __init__(self, response: HttpResponseBase, trace: RequestTrace) -> None:
        own = vars(response).get("close")
        self._own: object = own._own if isinstance(own, _Closing) else own  # the app may answer with one response twice
        self._response = response
        self._trace = trace
        self._is_called = False

    def __call__(self) -> None:
        """Close the response; the trace ends here."""
        self._is_called = True
        vars(self._response).pop("close", None)
        if self._own:
            vars(self._response)["close"] = self._own
        self._trace.closed()
        self._trace.activate()
        try:
            self._response.close()
        finally:
            self._trace.deactivate()
            self._trace.finish()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return getattr, (self._response, "close")

    def __del__(self) -> None:
        if not self._is_called:  # Django closes no response whose client went away before it was sent
            self._trace.finish()


class _Step:
    """The making of one chunk of a stream: the request is current, and with the last one its trace ends; where it is
    excluded, nothing is current."""

    def __init__(self, trace: RequestTrace | None) -> None:
        self._trace = trace
        self._undo: Undo | None = None

    def __enter__(self) -> None:
        if self._trace is None:
            self._undo = mlflow_bridge.silence()
        else:
            self._trace.activate()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._undo:
            self._undo()
        if self._trace is None:
            return
        self._trace.deactivate()
        if isinstance(error, StopIteration | StopAsyncIteration):
            self._trace.last_byte()
            self._trace.answered()
        elif error is not None:
            _blame(self._trace, error)
            self._trace.answered()


class _Chunks:
    """A streaming response's content: the request is current again while each chunk is made."""

    def __init__(self, content: Any, trace: RequestTrace | None) -> None:
        self._content = iter(content)
        self._trace = trace

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _Step(self._trace):
            chunk = cast(bytes, next(self._content))
            if self._trace:
                self._trace.sent(chunk)
            return chunk

    def close(self) -> None:
        """Close what makes the chunks, where that is needed."""
        if self._trace:
            self._trace.closed()
        if hasattr(self._content, "close"):
            self._content.close()


class _AsyncChunks:
    """The same for content that is made asynchronously."""

    def __init__(self, content: Any, trace: RequestTrace | None) -> None:
        self._trace = trace
        self._content = aiter(content)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _Step(self._trace):
            chunk = cast(bytes, await anext(self._content))
            if self._trace:
                self._trace.sent(chunk)
            return chunk

    async def aclose(self) -> None:
        """Close what makes the chunks, where that is needed."""
        self.close()
        with _Step(self._trace):
            if hasattr(self._content, "aclose"):
                await self._content.aclose()

    def close(self) -> None:
        """Django closes all content so; what is made asynchronously it leaves to the garbage collector."""
        if self._trace:
            self._trace.closed()

    def __del__(self) -> None:
        self.close()
        if self._trace:
            self._trace.finish()


def _failed(sender: object, **_: Any) -> None:
    """Django has caught an exception that nobody else did, and makes a 500 of it."""
    trace, error = current(), sys.exc_info()[1]
    if trace is not None and error is not None:
        trace.failed(error)


def exchange_of(request: HttpRequest) -> Exchange:
    meta = request.META
    port = str(meta.get("SERVER_PORT", ""))
    return Exchange(
        method=request.method or "",
        path=request.path,
        headers=environ_headers(meta),
        query_string=meta.get("QUERY_STRING", ""),
        scheme=request.scheme or "http",
        http_version=meta.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        server=(meta.get("SERVER_NAME", ""), int(port) if port.isdecimal() else None),
        client=meta.get("REMOTE_ADDR", "") or "",
        request=request,
    )
