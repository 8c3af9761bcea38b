"""The lifecycle of one request's trace: opened on arrival, finished at the last byte of the response."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from mlflow_middleware import delivery, mlflow_bridge
from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.request import keeping, other_tools, sampling
from mlflow_middleware.request.activation import Activation
from mlflow_middleware.request.following import follow_answer, follow_request
from mlflow_middleware.request.headers import headers_for_response
from mlflow_middleware.request.identification import Identification
from mlflow_middleware.request.keeping import reason_against
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace.record import SpanIds, TraceRecord

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
"""See https://www.w3.org/TR/trace-context/#traceparent-header-field-values."""


class RequestTrace:
    """The trace of one request. No method raises into the app. Without a span, as when tracing is disabled, it carries
    only the identity.

    Attributes:
        record: The request's record, from which the trace is encoded.
        exchange: The request and its response.
        content_length: The ``Content-Length`` of a WSGI app's response; empty if there is none.
        find_route: Returns the route's template, given the protocol's own request, if it is needed before the response
            starts.
    """

    content_length = ""
    find_route: Callable[[Any], str | None] | None = None
    _root: mlflow_bridge.RootSpan | None = None
    _inside: mlflow_bridge.TracesInside | None = None
    _last_byte_at: int | None = None
    _last_error: BaseException | None = None
    _has_ended = False

    def __init__(self, exchange: Exchange, settings: Settings) -> None:
        self.record = TraceRecord(exchange, settings)
        self.exchange = exchange
        self._activation = Activation()
        self._who = Identification(self.record) if self.record.settings.identifies_late else None

    @classmethod
    def open(cls, exchange: Exchange, settings: Settings) -> RequestTrace:
        """Start the trace of an exchange."""
        trace = cls(exchange, settings)
        trace._root = _opened_root(trace.record)
        return trace

    @classmethod
    def of_connection(cls, exchange: Exchange, settings: Settings) -> RequestTrace:
        """Create a stand-in for a connection, which has no trace; its ids and tags go to each trace opened inside."""
        trace = cls(exchange, settings)
        trace._inside = _opened_inside(trace.record)
        return trace

    @property
    def trace_id(self) -> str | None:
        """MLflow's trace id, ``tr-...``; None while tracing is disabled."""
        return self.record.trace_id or None

    @property
    def settings(self) -> Settings:
        """The settings of the request: those of the middleware, with the options of the route."""
        return self.record.settings

    @property
    def identity(self) -> Identity:
        """The ids of the request, as far as known yet."""
        if self._who:
            self._who.look()
        return self.record.identity

    @property
    def user_id(self) -> str | None:
        """The user id as stored: a pseudonym if ``user_id_hmac_key`` is set."""
        if self._who:
            self._who.look()
        return self.record.user_id

    @guarded
    def activate(self) -> None:
        """Make this request current, with its root span or, when resumed, the span that was current last."""
        self._activation.enter(self, self._root or self._inside)

    @guarded
    def deactivate(self) -> None:
        """Undo `activate`, in the same context."""
        self._activation.leave(is_last=self._has_ended)

    # --- events of the request ---

    @guarded
    def received(self, chunk: bytes) -> None:
        """Record a chunk of the request's body that the app has read."""
        if (body := self.exchange.request_body) is not None and body.add(chunk):
            follow_request(self.exchange, body)

    @guarded
    def response_started(self, status: int, content_type: str = "", content_encoding: str = "") -> None:
        """Record the start of the response; the framework's authentication has run by now."""
        self.exchange.status = int(status)  # may be an HTTPStatus
        self.exchange.response_type, self.exchange.response_encoding = content_type, content_encoding
        if self._who:
            self.identify()

    @guarded
    def sent(self, chunk: bytes) -> None:
        """Record a chunk of the response's body that the server has accepted."""
        body = self.exchange.response_body
        if chunk and body is not None:
            self.record.first_byte_at = self.record.first_byte_at or time.time_ns()
            if body.add(chunk):
                follow_answer(self.exchange, body)
            if self.content_length.isdecimal() and delivery.is_capturing() and body.size >= int(self.content_length):
                self.last_byte()  # a test client may read no further
                self.answered()

    @guarded
    def response_headers(self) -> list[tuple[str, str]]:
        """Return the headers to add to the response."""
        return headers_for_response(self.record, None if self.record.is_unwanted else self.trace_id)

    def last_byte(self) -> int:
        """Record the end of the response, after which no work counts; return its duration in nanoseconds."""
        self._last_byte_at = now = time.time_ns()
        return now - self.record.start_time

    @guarded
    def failed(self, error: BaseException) -> None:
        """Record an exception of the app, unless it only reports a disconnected client."""
        if self.record.client_disconnected and _is_disconnect(error):
            return
        if self.exchange.status is None:
            self.exchange.status = 500
        if error is not self._last_error:  # frameworks signal an exception, and may raise it as well
            self._last_error = error
            self.record.fail(error)

    @guarded
    def disconnected(self, certainly: bool = False) -> None:
        """Record that the client disconnected; after the last byte only if it ``certainly`` missed some of it."""
        if certainly or self._last_byte_at is None:
            self.record.client_disconnected = True

    @guarded
    def closed(self) -> None:
        """Record that the server closed a WSGI response; before its end, that means that the client disconnected."""
        is_bodiless = self.exchange.method == "HEAD" or self.exchange.status in (204, 304)
        if self._last_error is None and not is_bodiless and not self._has_ended:
            self.disconnected()

    @guarded
    def answered(self) -> None:
        """Hand the trace to delivery once the whole response is sent; it still accepts spans until `finish`."""
        root = self._root
        if root and not self._has_ended:
            self._complete()
            if reason_against(self.record, root, self._last_byte_at) is None and root.hold():
                self._has_ended = True
                root.end(self._last_byte_at)

    @guarded
    def finish(self) -> None:
        """End the trace and hand it to delivery; further calls do nothing."""
        root = self._root
        if not self._has_ended:
            self._has_ended = True
            self._complete()
            if root:
                self._end(root)
        elif root:
            root.release()
        self.exchange.request = None  # breaks a reference cycle, which the garbage collector would have to find

    def _complete(self) -> None:
        if self._who:
            self.identify()
            self._who.close()
        self.record.is_complete = True

    def _end(self, root: mlflow_bridge.RootSpan) -> None:
        reason = reason_against(self.record, root, self._last_byte_at)
        if reason is not None and root.discard() and reason != keeping.NOT_COUNTED:
            delivery.leave_out(reason)
        root.end(self._last_byte_at)

    def leave_out(self) -> None:
        """Drop the trace without counting it, for a request that does not belong to the app."""
        self.record.decide(keeping.NOT_COUNTED)

    # --- identity and annotations ---

    @guarded
    def identify(self) -> None:
        """Resolve the ids with the framework's authentication; this happens no later than the start of the response."""
        if self._who:
            if self.find_route and self._who.is_late:
                self.exchange.route = self.exchange.route or self.find_route(self.exchange.request)
            self._who.ask(self._root, self._inside)

    @guarded
    def annotate(self, given: Identity, tags: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        """Add identity, tags and metadata from the app; they take precedence over headers and ``identify``."""
        self._who = self._who or Identification(self.record)
        self._who.annotate(given, self._root or self._inside)
        self.record.annotate(tags, metadata)
        if target := self._root or self._inside:
            target.annotate(tags, metadata)


@guarded
def _opened_root(record: TraceRecord) -> mlflow_bridge.RootSpan | None:
    settings = record.settings
    if not mlflow_bridge.tracing.can_discard:  # decide before the trace starts
        key = record.identity.session_id or uuid.uuid4().hex
        if not sampling.keeps(settings, key, failed=False, seconds=0.0):
            delivery.leave_out(keeping.SAMPLED_OUT)
            return None
    remote = _remote(record.exchange)
    root = mlflow_bridge.open_root_span(record, remote=remote, adopt_remote=settings.trust_incoming_trace)
    if other_tools.are_there:
        other_tools.meet(record)
    return root


@guarded
def _opened_inside(record: TraceRecord) -> mlflow_bridge.TracesInside:
    inside = mlflow_bridge.tracing.TracesInside()
    inside.keeps_words = record.keeps_words
    tags = {**record.settings.trace_tags, **record.identity_tags()}
    inside.annotate(tags, record.identity_metadata(), record.identity.request_id)
    return inside


def _is_disconnect(error: BaseException) -> bool:
    """Return whether servers or frameworks raise this exception for a disconnected client."""
    if inner := getattr(error, "exceptions", None):  # an exception group
        return all(map(_is_disconnect, inner))
    return isinstance(error, OSError | GeneratorExit) or type(error).__name__ in ("ClientDisconnect", "CancelledError")


def _remote(exchange: Exchange) -> SpanIds | None:
    """Return the ids of the caller's span. Its sampled flag is ignored, as it was set for another tracing system."""
    given = exchange.headers.get("traceparent")
    match = given and _TRACEPARENT.fullmatch(given.strip())
    if not match:
        return None
    caller = SpanIds(int(match[1], 16), int(match[2], 16))
    return caller if all(caller) else None  # zero is not a valid id
