"""The middleware for ASGI apps.

::

    from mlflow_middleware.asgi import TraceMiddleware

    app = TraceMiddleware(app)

Options are keywords (see ``mlflow_middleware.settings.Settings``). The middleware observes messages as they
pass: it never consumes, buffers or reorders one. A websocket has no trace of its own: each trace that the app opens
inside one carries its session, user, request id and tags. When the server shuts the app down, pending traces are sent.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from mlflow_middleware import delivery, mlflow_bridge, request_trace
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.exchange import MAX_HEADERS, MAX_TARGET, Exchange, bounded
from mlflow_middleware.request import http_errors, routes
from mlflow_middleware.request.asgi_response import deliver, observed
from mlflow_middleware.request.leaving import Received
from mlflow_middleware.request.rereadable import make_rereadable
from mlflow_middleware.request.waiting import in_thread
from mlflow_middleware.request_trace import REQUEST_KEY, SETTINGS_KEY, RequestTrace
from mlflow_middleware.settings import Settings

if TYPE_CHECKING:
    from asgiref.typing import (
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        HTTPScope,
        WebSocketScope,
        WWWScope,
    )

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI app of any framework. Each framework types scope, receive and send in its own way and rejects other types:
where Starlette expects an app, as in a ``Mount``, type checkers reject one whose ``__call__`` has asgiref's types.
"""


class TraceMiddleware:
    """ASGI middleware that records every HTTP request as one MLflow trace.

    Args:
        app: The app to wrap.
        settings: Ready-made settings, instead of ``options``.
        options: Options of ``Settings``, as keywords.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """

    @overload  # add_middleware() passes the app by position (as type checkers see it); older Starlette by name
    def __init__(self, app: ASGIApp, /, *, settings: Settings | None = None, **options: object) -> None: ...
    @overload
    def __init__(self, *, app: ASGIApp, settings: Settings | None = None, **options: object) -> None: ...
    def __init__(  # type: ignore[misc]
        self, app: ASGIApp, *, settings: Settings | None = None, **options: object
    ) -> None:
        self.app = app
        self.set_up(settings, options)

    def set_up(self, settings: Settings | None, options: Mapping[str, object]) -> None:
        """Apply the settings; the last step of ``__init__``."""
        self.settings = settings or Settings.load(**options)
        self._safe_route = guarded(self.route)
        request_trace.start(self.settings)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, flushing(send))
            return
        scope.setdefault(SETTINGS_KEY, self.settings)
        if kind not in ("http", "websocket") or not self.settings.enabled or REQUEST_KEY in scope:
            await self.app(scope, receive, send)
        elif "wsgi_environ" in scope and (around := _around(scope)):
            await self._bridged(around, scope, receive, send)
        elif (trace := _opened(scope, self.settings)) is None:
            await self._silenced(scope, receive, send)
        else:
            scope[REQUEST_KEY] = trace
            trace.find_route = self._safe_route
            serve = self._connected if kind == "websocket" else self._traced
            await serve(trace, scope, receive, send)

    def route(self, scope: HTTPScope) -> str | None:
        """Return the template of the matched route, if the framework leaves it in the scope."""
        return routes.of_scope(scope)

    @guarded
    def _learn_route(self, scope: HTTPScope, trace: RequestTrace) -> None:
        if not trace.record.is_route_explicit:
            inner = trace.exchange.route
            trace.exchange.route = routes.below_mounts(scope, inner) if inner else self.route(scope)

    async def _bridged(
        self, around: RequestTrace, scope: WWWScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Serve a request that an enclosing WSGI app traces, and report the matched route to that trace."""

        async def reporting(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start":
                _report_route(self.route, scope, around)
            await send(message)

        try:
            await self.app(scope, receive, reporting)
        except Exception as error:
            _report_route(self.route, scope, around)
            http_errors.raised(around, error)
            raise

    async def _silenced(self, scope: WWWScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        undo = mlflow_bridge.silence()
        try:
            await self.app(scope, receive, send)
        finally:
            undo()

    async def _connected(
        self, trace: RequestTrace, scope: WebSocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        trace.activate()
        try:
            await self.app(scope, receive, _accepting(send, trace))
        finally:
            trace.deactivate()
            if trace.settings.flush_each_request:
                await in_thread(deliver)

    async def _traced(
        self, trace: RequestTrace, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        def answered() -> None:
            self._learn_route(scope, trace)
            trace.answered()

        received, flushes = Received(receive, trace), trace.record.settings.flush_each_request
        sending = observed(send, trace, answered, received.detect_disconnect, is_held=flushes)
        trace.activate()
        try:
            await self.app(scope, received.receive, sending)
        except asyncio.CancelledError:
            trace.disconnected()
            raise
        except BaseException as error:
            http_errors.raised(trace, error)
            raise
        finally:
            if not trace.record.is_complete:
                self._learn_route(scope, trace)
            trace.finish()
            trace.deactivate()
            if flushes and not trace.record.client_disconnected:
                await in_thread(deliver)  # an exception is not answered yet; spans of background tasks may follow


_shut_down = guarded(delivery.shutdown)


@guarded
def _around(scope: WWWScope) -> RequestTrace | None:
    """Return the trace that an enclosing WSGI app has opened, if any."""
    return request_trace.around(scope, str(scope.get("method", "GET")), scope.get("path", ""))


@guarded
def _report_route(route: Callable[[Any], str | None], scope: WWWScope, around: RequestTrace) -> None:
    if found := route(scope):
        routes.learn(around, routes.below(around, scope.get("root_path", "")) + found)


@guarded
def _opened(scope: WWWScope, settings: Settings) -> RequestTrace | None:
    """Open the trace of a request or the stand-in for a websocket; return None if it is excluded."""
    exchange = exchange_of(scope)
    if reason := settings.reason_to_exclude(exchange.path, exchange.method, exchange.headers):
        delivery.leave_out(reason)
        return None
    kind = RequestTrace.of_connection if scope["type"] == "websocket" else RequestTrace.open
    return kind(exchange, settings)


def _accepting(send: ASGISendCallable, trace: RequestTrace) -> ASGISendCallable:
    async def accepting(message: ASGISendEvent) -> None:
        if message["type"] == "websocket.accept":
            trace.identify()
        elif message["type"] == "websocket.close" and trace.settings.flush_each_request:
            await in_thread(deliver)  # traces opened inside; the process may be frozen after this
        await send(message)

    return accepting


def flushing(send: ASGISendCallable) -> ASGISendCallable:
    """Wrap a lifespan's ``send`` so that pending traces are delivered before the shutdown is confirmed."""

    async def confirming(message: ASGISendEvent) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await in_thread(_shut_down)
        await send(message)

    return confirming


def exchange_of(scope: Any) -> Exchange:
    """Build an exchange from a scope; a websocket starts with a GET.

    See https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope.
    """
    raw = scope.get("headers", [])
    try:
        return _exchange(scope, raw if type(raw) is list else make_rereadable(scope))
    except TypeError:  # a pair or an address has no items: it can be read only once
        return _exchange(scope, make_rereadable(scope))


def _exchange(scope: Any, raw: Iterable[tuple[bytes, bytes]]) -> Exchange:
    headers, held = bounded(_headers_of(raw))
    path, query_string = scope["path"][:MAX_TARGET], scope.get("query_string", b"")[:MAX_TARGET]
    server, client = scope.get("server"), scope.get("client")
    return Exchange(
        method=scope.get("method", "GET"),
        path=path,
        headers=headers,
        query_string=query_string.decode("latin-1"),
        scheme=scope.get("scheme", "http"),
        http_version=scope.get("http_version", ""),
        server=(str(server[0]), server[1]) if server else None,
        client=str(client[0]) if client else "",
        request=scope,
        held=held + len(path) + len(query_string),
    )


def _headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the first `MAX_HEADERS` headers, with repeated ones joined by a comma."""
    pairs = list(islice(raw, MAX_HEADERS))
    headers = {  # not unpacked, since a pair that is an iterator must not be consumed
        (_name if len(pair[0]) <= _MAX_KNOWN else _name.__wrapped__)(pair[0]): pair[1].decode("latin-1")
        for pair in pairs
    }
    if len(headers) < len(pairs):
        every: dict[str, list[str]] = {}
        for name, value in pairs:
            every.setdefault(_name.__wrapped__(name), []).append(value.decode("latin-1"))
        headers = {name: ",".join(values) for name, values in every.items()}
    return headers


_MAX_KNOWN = 64
"""Longest header name, in bytes, that is cached."""


@functools.lru_cache(maxsize=256)
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()
