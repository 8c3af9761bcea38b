"""Exceptions that are answers, and exceptions that are behind a 500."""

from __future__ import annotations

import contextlib
import gc
import urllib.error
import weakref
from email.message import Message
from typing import Any

import pytest
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from mlflow.entities import Trace

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware as ASGIMiddleware
from mlflow_middleware.mlflow_bridge.pending import PendingTrace
from mlflow_middleware.request.http_errors import hold, status_of
from mlflow_middleware.request_trace import current
from mlflow_middleware.wsgi import TraceMiddleware as WSGIMiddleware
from tests.messages import body, http, start
from tests.unit.serving import Serving, root_of


def of(package: str, **attributes: object) -> Exception:
    """Return an exception whose class is in a package, or inherits from one there."""
    base = type("HTTPException", (Exception,), {"__module__": f"{package}.exceptions", **attributes})
    return type("NotFound", (base,), {"__module__": "my_app"})()  # type: ignore[no-any-return]


class Response:
    """A response inside an exception."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (of("starlette", status_code=404), 404),
        (of("werkzeug", code=418), 418),
        (of("blacksheep", status=403), 403),
        (of("falcon", status="503 Service Unavailable"), 503),
        (of("cherrypy", status=303), 303),
        (of("starlette", code=1008), None),  # that of a websocket
        (of("werkzeug", code=None), None),
        (of("starlette"), None),
        (of("werkzeug", code=None, response=Response(503)), 503),  # Flask's abort() of a whole answer
        (of("werkzeug", code=404, response=Response(410)), 410),
        (of("openai", response=Response(429)), None),
        (of("openai", status_code=429), None),
        (of("starlette_like", status_code=404), None),
        (urllib.error.HTTPError("http://x", 404, "", Message(), None), None),
        (SystemExit(404), None),
        (ValueError("no"), None),
    ],
)
def test_only_a_web_frameworks_exception_has_a_status(error: BaseException, status: int | None) -> None:
    """An HTTP client's error has one, too: that of another server's answer."""
    assert status_of(error) == status


async def serve(traces: list[Trace], app: Any, **options: Any) -> tuple[str, list[str]]:
    """Return the state of the one trace of a request to an ASGI app, and the names of its exceptions."""
    serving = Serving(ASGIMiddleware(app, **options), http())
    with contextlib.suppress(Exception):  # the app's own
        await serving.end()
    (trace,) = traces
    return str(trace.info.state), [str(event.attributes["exception.type"]) for event in root_of(trace).events]


def answering(error: Exception, status: int) -> Any:
    """Return an app that answers while it handles an exception, like exception handlers do."""

    async def answer(send: ASGISendCallable) -> None:
        await send(start(status))
        await send(body())

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            raise error
        except Exception:
            await answer(send)

    return app


@pytest.mark.parametrize(
    ("error", "status", "state", "recorded"),
    [
        (KeyError("away"), 500, "ERROR", ["KeyError"]),
        (KeyError("away"), 404, "OK", []),
        (KeyError("away"), 200, "OK", []),
        (of("starlette", status_code=503), 503, "ERROR", []),
        (of("openai", status_code=429), 500, "ERROR", ["NotFound"]),
    ],
)
async def test_an_exception_handled_while_a_500_starts(
    traces: list[Trace], error: Exception, status: int, state: str, recorded: list[str]
) -> None:
    """It is the exception behind the 500."""
    assert await serve(traces, answering(error, status)) == (state, recorded)


async def test_error_statuses_decide(traces: list[Trace]) -> None:
    """The option lists the statuses that are errors."""
    assert await serve(traces, answering(KeyError("away"), 500), error_statuses="400-404") == ("OK", [])


@pytest.mark.parametrize(("status", "state"), [(404, "OK"), (503, "ERROR")])
async def test_an_http_exception_passes_through(traces: list[Trace], status: int, state: str) -> None:
    """The framework handles it further out, with its status."""
    error = of("litestar", status_code=status)

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        raise error

    assert await serve(traces, app) == (state, [])
    assert traces[0].info.tags["http.status_code"] == str(status)


async def test_an_exception_after_the_start_is_an_error(traces: list[Trace]) -> None:
    """It cannot be answered any more."""
    error = of("litestar", status_code=404)

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send(start(200))
        raise error

    assert await serve(traces, app) == ("ERROR", ["NotFound"])


@pytest.mark.parametrize("has_exc_info", [True, False])
def test_a_wsgi_apps_exc_info(traces: list[Trace], has_exc_info: bool) -> None:
    """``start_response`` receives the exception behind an error page."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        error_info = (KeyError, KeyError("away"), None) if has_exc_info else None
        start_response("500 Sorry", [], error_info)
        return [b"sorry"]

    WSGIMiddleware(app)({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda status, headers, exc_info=None: None)  # type: ignore[arg-type]

    assert traces[0].info.state == "ERROR"
    assert len(root_of(traces[0]).events) == has_exc_info


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 Sorry"])
def test_a_handled_exception_is_released(status: str) -> None:
    """It holds the app's frames, while the trace is pending."""
    waiting: list[PendingTrace] = []
    answered: list[weakref.ref[Exception]] = []
    away = type("Away", (Exception,), {})  # Python's own exceptions take no weak references

    def app(environ: Any, start_response: Any) -> list[bytes]:
        error = away()
        answered.append(weakref.ref(error))
        trace = current()
        assert trace is not None
        hold(trace, error)
        start_response(status, [])
        return [b"sorry"]

    with delivery.capturing(waiting.append):
        WSGIMiddleware(app)({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *given: None)  # type: ignore[arg-type]
    gc.collect()

    assert (len(waiting), answered[0]()) == (1, None)
