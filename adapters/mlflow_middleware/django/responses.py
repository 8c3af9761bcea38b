"""Observation of responses: our headers, the recorded body, and the end of the trace."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.django.streaming import observe_stream
from mlflow_middleware.request import request_ids
from mlflow_middleware.request.following import count_file
from mlflow_middleware.request.headers import join
from mlflow_middleware.request_trace import RequestTrace

_HEADERS = "_mlflow_middleware_headers"
"""The attribute of a response for the headers that we set: name, value, and the app's own earlier value."""


def observe_response(response: HttpResponseBase, trace: RequestTrace) -> HttpResponseBase:
    """Add our headers to a response and record it; hand its trace to delivery now, or at the end of a stream."""
    _started(response, trace)
    _add_headers(response, trace)
    _stay_until_closed(response, trace)
    if is_answered(response):
        if isinstance(response, StreamingHttpResponse):
            count_file(trace.exchange, response.headers.get("Content-Length", ""))
        else:
            _sent(response, trace)
        trace.last_byte()
        trace.answered()
    else:
        observe_stream(cast(StreamingHttpResponse, response), trace)
    return response


def is_answered(response: HttpResponseBase) -> bool:
    """Return whether a response is complete, or a file, which the server may send by itself."""
    return not isinstance(response, StreamingHttpResponse) or bool(getattr(response, "file_to_stream", None))


@guarded
def _started(response: HttpResponseBase, trace: RequestTrace) -> None:
    headers = response.headers
    trace.response_started(response.status_code, headers.get("Content-Type", ""), headers.get("Content-Encoding", ""))
    if trace.settings.error_when:
        trace.exchange.response_headers = {name.lower(): value for name, value in response.items()}


@guarded
def _sent(response: HttpResponseBase, trace: RequestTrace) -> None:
    """Record the whole body, unless an outer middleware has yet to render it."""
    if getattr(response, "is_rendered", True):
        trace.sent(cast(HttpResponse, response).content)


@guarded
def _add_headers(response: HttpResponseBase, trace: RequestTrace) -> None:
    for name, value, before in vars(response).pop(_HEADERS, ()):  # the app has returned this response before
        if before is not None:
            response.headers[name] = before
        elif response.headers.get(name) == value:
            del response.headers[name]
    request_ids.learn(trace, response.items())
    changed = _changed(response, trace.response_headers() or (), "origin" in trace.exchange.headers)
    for name, value, _ in changed:
        response.headers[name] = value
    vars(response)[_HEADERS] = changed


def _changed(
    response: HttpResponseBase, ours: Collection[tuple[str, str]], cross_origin: bool
) -> list[tuple[str, str, str | None]]:
    """Return the headers to set on the response: name, value, and the app's own earlier value."""
    if not cross_origin:  # nothing to expose
        return [(name, value, None) for name, value in ours if name not in response.headers]
    own = {name.lower(): value for name, value in response.items()}
    joined = list(response.items())
    join(joined, ours, cross_origin=True)
    return [(name, value, own.get(name.lower())) for name, value in joined if own.get(name.lower()) != value]


@guarded
def _stay_until_closed(response: HttpResponseBase, trace: RequestTrace) -> None:
    vars(response)["close"] = _Closing(response, trace)


class _Closing:
    """Replacement of a response's ``close``, so that code in it, such as ``request_finished``, belongs to the request.

    An outer cache may pickle the response; the pickle contains the response's own ``close``.
    """

    def __init__(self, response: HttpResponseBase, trace: RequestTrace) -> None:
        own = vars(response).get("close")
        self._own: object = own._own if isinstance(own, _Closing) else own  # a response may be returned twice
        self._response = response
        self._trace = trace
        self._is_called = False

    def __call__(self) -> None:
        """Close the response and end the trace."""
        self._is_called = True
        vars(self._response).pop("close", None)
        if self._own:
            vars(self._response)["close"] = self._own
        request_ids.learn(self._trace, self._response.items())  # an outer middleware may have sent another id
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
        if not self._is_called:  # Django does not close a response whose client disconnected before it was sent
            self._trace.finish()
