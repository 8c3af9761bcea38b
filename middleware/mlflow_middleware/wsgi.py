"""The middleware for WSGI apps.

::

    from mlflow_middleware.wsgi import TraceMiddleware

    app.wsgi_app = TraceMiddleware(app.wsgi_app)

Options are keywords (see ``mlflow_middleware.settings.Settings``). The request is current while the app, each step of
its iterable and the iterable's ``close()`` run, so that ``annotate()`` and child spans work from the first chunk to the
last. All run in the server's own context: context variables that the app sets persist, as without the middleware.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_middleware import delivery, mlflow_bridge, request_trace
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.exchange import MAX_TARGET, Exchange, bounded
from mlflow_middleware.request import http_errors, request_ids, routes, wsgi_socket
from mlflow_middleware.request.chunks import ReadBody, SilentChunks, TracedChunks, deliver_before_the_end
from mlflow_middleware.request.following import count_file
from mlflow_middleware.request.headers import join
from mlflow_middleware.request.rereadable import rereadable
from mlflow_middleware.request_trace import REQUEST_KEY, SETTINGS_KEY, RequestTrace
from mlflow_middleware.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class TraceMiddleware:
    """WSGI middleware that records every request as one MLflow trace.

    Args:
        app: The app to wrap.
        settings: Ready-made settings, instead of ``options``.
        options: Options of ``Settings``, as keywords.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """

    def __init__(self, app: WSGIApplication, *, settings: Settings | None = None, **options: object) -> None:
        self.app = app
        self.settings = settings or Settings.load(**options)
        request_trace.start(self.settings)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        environ.setdefault(SETTINGS_KEY, self.settings)
        if not self.settings.enabled or REQUEST_KEY in environ:
            return self.app(environ, start_response)
        if around := _around(environ):
            return self.app(environ, _reporting(start_response, environ, around))
        trace = _opened(environ, self.settings)
        if trace is None:
            undo = mlflow_bridge.silence()
            try:
                result = self.app(environ, start_response)
            finally:
                undo()
            return result if _is_whole(result, environ) else SilentChunks(result)
        environ[REQUEST_KEY] = trace
        if wsgi_socket.is_websocket(environ):
            self.socket_opened(trace)
            return wsgi_socket.serve(self.app, environ, start_response, trace)
        if "wsgi.input" in environ:
            environ["wsgi.input"] = ReadBody(environ["wsgi.input"], trace)
        trace.activate()
        try:
            result = self.app(environ, _observed(start_response, trace))
        except BaseException as error:
            http_errors.raised(trace, error)
            trace.finish()
            deliver_before_the_end(trace)
            raise
        finally:
            trace.deactivate()
        return _finishing(result, environ, trace)

    def socket_opened(self, trace: RequestTrace) -> None:
        """Identify a WebSocket before it is served, since WSGI does not report when the app accepts it."""
        trace.identify()


def _finishing(result: Iterable[bytes], environ: WSGIEnvironment, trace: RequestTrace) -> Iterable[bytes]:
    """Return the app's iterable so that the trace ends with it.

    A list is complete, and servers check its length; a file wrapper must reach the server unchanged. Both end the trace
    now.
    """
    if _is_whole(result, environ):
        if isinstance(result, (list, tuple)):
            for chunk in result:
                trace.sent(chunk)
        else:
            count_file(trace.exchange, trace.content_length)
        trace.last_byte()
        trace.finish()
        deliver_before_the_end(trace)
        return result
    return TracedChunks(result, trace)


@guarded
def _opened(environ: WSGIEnvironment, settings: Settings) -> RequestTrace | None:
    """Open the trace of a request or the stand-in for a WebSocket; return None if it is excluded."""
    exchange = exchange_of(environ)
    if reason := settings.reason_to_exclude(exchange.path, exchange.method, exchange.headers):
        delivery.leave_out(reason)
        return None
    kind = RequestTrace.of_connection if wsgi_socket.is_websocket(environ) else RequestTrace.open
    return kind(exchange, settings)


@guarded
def _around(environ: WSGIEnvironment) -> RequestTrace | None:
    """Return the trace that an enclosing ASGI app has opened, if any; some bridges pass on only context variables."""
    return request_trace.around(environ, environ.get("REQUEST_METHOD", ""), _path(environ))


def _reporting(start_response: StartResponse, environ: WSGIEnvironment, around: RequestTrace) -> StartResponse:
    """Wrap the bridge's `start_response` to report the matched route and any error to the enclosing trace."""

    def reporting(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        _report_route(environ, around, exc_info)
        return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

    return reporting


@guarded
def _report_route(environ: WSGIEnvironment, around: RequestTrace, exc_info: Any) -> None:
    routes.learn(around, routes.of_environ(environ, around))
    if exc_info:
        http_errors.hold(around, exc_info[1])


def _is_whole(result: object, environ: WSGIEnvironment) -> bool:
    """Return whether an app's result must reach the server as the same object."""
    wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(result, (list, tuple)) or (isinstance(wrapper, type) and isinstance(result, wrapper))


def _observed(start_response: StartResponse, trace: RequestTrace) -> StartResponse:
    def observed(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        if (joined := _copied(headers)) is not None:  # leave the app's own list unchanged
            headers = joined
            _add_our_headers(status, headers, trace, exc_info)
        before = joined and joined[:]
        write = start_response(status, headers, exc_info) if exc_info else start_response(status, headers)
        if joined != before:  # changed by a middleware around this one
            request_ids.learn(trace, headers)

        def written(chunk: bytes) -> object:
            try:
                done = write(chunk)
            except OSError:
                trace.disconnected(certainly=True)
                raise
            trace.sent(chunk)
            return done

        return written

    return observed


@guarded
def _copied(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(rereadable(headers))


@guarded
def _add_our_headers(status: str, headers: list[tuple[str, str]], trace: RequestTrace, exc_info: Any) -> None:
    known = {name.lower(): value for name, value in headers}
    trace.content_length = known.get("content-length", "")
    code = int(status[:3])
    trace.response_started(code, known.get("content-type", ""), known.get("content-encoding", ""))
    if trace.record.settings.error_when:
        trace.exchange.response_headers = known
    if trace.exchange.route is None:
        trace.exchange.route = routes.of_environ(trace.exchange.request, trace)
    if code >= 400 or trace.record.held:
        http_errors.answered(trace, code, exc_info and exc_info[1])
        trace.record.is_unrouted = routes.none_took(trace.exchange.request)  # Flask removes its request
    request_ids.learn(trace, headers)
    join(headers, trace.response_headers() or (), cross_origin="origin" in trace.exchange.headers)


def exchange_of(environ: WSGIEnvironment) -> Exchange:
    """Build an exchange from an environ (https://peps.python.org/pep-3333/#environ-variables)."""
    port = str(environ.get("SERVER_PORT", ""))
    headers, held = bounded(environ_headers(environ))
    path, query_string = _path(environ), environ.get("QUERY_STRING", "")[:MAX_TARGET]
    return Exchange(
        method=environ["REQUEST_METHOD"],
        path=path,
        headers=headers,
        query_string=query_string,
        scheme=environ.get("wsgi.url_scheme", "http"),
        http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        server=(environ.get("SERVER_NAME", ""), int(port) if port.isdecimal() else None),
        client=environ.get("REMOTE_ADDR", ""),
        request=environ,
        held=held + len(path) + len(query_string),
    )


def _path(environ: WSGIEnvironment) -> str:
    path: str = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))[:MAX_TARGET]
    return path if path.isascii() else path.encode("latin-1", "replace").decode("utf-8", "replace")


def environ_headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the request headers of a WSGI environ or of Django's ``request.META``, with lower-case names."""
    return {
        (_header_name if len(key) <= _MAX_KNOWN else _header_name.__wrapped__)(key): value
        for key, value in environ.items()
        if (key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")) and isinstance(value, str) and value
    }


_MAX_KNOWN = 64
"""Longest key of an environ, in characters, that is cached."""


@functools.lru_cache(maxsize=256)
def _header_name(key: str) -> str:
    """Return the lower-case name of the header that an environ's key stands for."""
    return key.removeprefix("HTTP_").replace("_", "-").lower()
