"""The middleware for WSGI apps.

::

    from mlflow_middleware.wsgi import TraceMiddleware

    app.wsgi_app = TraceMiddleware(app.wsgi_app)

Options are keywords (see ``mlflow_middleware.settings.Settings``). While the app, each step of its iterable and the
iterable's ``close()`` run, the request is current, so that ``annotate()`` and child spans work on the first chunk and
on the last. They run in the server's own context: what the app sets there stays, as it does without the middleware.
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
    """Make every request of a WSGI app a trace.

    Args:
        app: The app.
        settings: The settings, where they are built already.
        options: What ``Settings`` knows, as keywords; instead of ``settings``.

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
            return self.app(environ, _telling(start_response, environ, around))
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
        """A WebSocket is about to be served; nothing tells when the app has accepted it."""
        trace.identify()


def _finishing(result: Iterable[bytes], environ: WSGIEnvironment, trace: RequestTrace) -> Iterable[bytes]:
    """The app's iterable, and the trace's end with it.

    A list is complete already, and servers look at its length; a file wrapper has to reach the server as it is.
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
    """The trace of a request, or what stands for a WebSocket; None where it is excluded."""
    exchange = exchange_of(environ)
    if reason := settings.reason_to_exclude(exchange.path, exchange.method, exchange.headers):
        delivery.leave_out(reason)
        return None
    kind = RequestTrace.of_connection if wsgi_socket.is_websocket(environ) else RequestTrace.open
    return kind(exchange, settings)


@guarded
def _around(environ: WSGIEnvironment) -> RequestTrace | None:
    """The trace that an ASGI app has opened which this one is mounted in; some bridges pass no more on than context."""
    return request_trace.around(environ, environ["REQUEST_METHOD"], _path(environ))


def _telling(start_response: StartResponse, environ: WSGIEnvironment, around: RequestTrace) -> StartResponse:
    """The bridge's `start_response`; the trace around this app learns which route is taken, and what is answered."""

    def telling(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        _tell(environ, around, exc_info)
        return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

    return telling


@guarded
def _tell(environ: WSGIEnvironment, around: RequestTrace, exc_info: Any) -> None:
    routes.learn(around, routes.of_environ(environ, around))
    if exc_info:
        http_errors.hold(around, exc_info[1])


def _is_whole(result: object, environ: WSGIEnvironment) -> bool:
    """Whether an app's answer has to reach the server as the object it is."""
    wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(result, (list, tuple)) or (isinstance(wrapper, type) and isinstance(result, wrapper))


def _observed(start_response: StartResponse, trace: RequestTrace) -> StartResponse:
    def observed(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        if (joined := _copied(headers)) is not None:  # the app's own list stays as it is
            headers = joined
            _add_our_headers(status, headers, trace, exc_info)
        before = joined and joined[:]
        write = start_response(status, headers, exc_info) if exc_info else start_response(status, headers)
        if joined != before:  # around us
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
        trace.record.is_unrouted = routes.none_took(trace.exchange.request)  # Flask takes its request away afterwards
    request_ids.learn(trace, headers)
    join(headers, trace.response_headers() or (), cross_origin="origin" in trace.exchange.headers)


def exchange_of(environ: WSGIEnvironment) -> Exchange:
    """https://peps.python.org/pep-3333/#environ-variables"""
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
    """The request headers of a WSGI environ, or of Django's ``request.META``: lower-case names."""
    return {
        (_header_name if len(key) <= _MAX_KNOWN else _header_name.__wrapped__)(key): value
        for key, value in environ.items()
        if (key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")) and isinstance(value, str) and value
    }


_MAX_KNOWN = 64
"""Characters of a key of an environ that is remembered."""


@functools.lru_cache(maxsize=256)
def _header_name(key: str) -> str:
    """The header that a key of an environ stands for, in lower case."""
    return key.removeprefix("HTTP_").replace("_", "-").lower()
