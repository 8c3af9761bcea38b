"""The trace of one request: opened when it arrives, annotated while it runs, finished at its last byte.

``annotate`` and ``current`` work from anywhere inside a request: handlers, thread pools, generators, background
tasks.
"""

from __future__ import annotations

import functools
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token

from mlflow_middleware import delivery, feedback_token, identity, mlflow_bridge, sampling
from mlflow_middleware.capture import MAX_ATTRIBUTE, contents, previews, strict_json
from mlflow_middleware.capture.body import Body
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.guard import guarded
from mlflow_middleware.identity import Identity, clean_text
from mlflow_middleware.settings import MAX_TAG_VALUE, Settings

REQUEST_KEY = "mlflow_middleware.request_trace"
"""Where an ASGI scope or a WSGI environ holds the trace that was opened for it: one request, one trace."""

SETTINGS_KEY = "mlflow_middleware.settings"
"""Where an ASGI scope or a WSGI environ holds the settings of the middleware around it, whether it is traced or not."""

CLIENT_REQUEST_ID_TAG = "client_request_id"
SESSION_TAG = mlflow_bridge.keys.SESSION
USER_TAG = mlflow_bridge.keys.USER

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
"""https://www.w3.org/TR/trace-context/#traceparent-header-field-values"""
_MAX_QUERY = 4 * MAX_ATTRIBUTE
"""Characters of a query string that are looked at on the request path; fewer are kept."""
_MAX_HOST = 255
"""Characters of a host name at most: https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4"""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@]+)(?::([0-9]{1,5}))?")

_current: ContextVar[RequestTrace | None] = ContextVar("mlflow_middleware_request_trace", default=None)


class RequestTrace:
    """One request's trace. Nothing here raises into the app; without a span (tracing disabled) it only carries the
    identity.

    Attributes:
        exchange: What is known of the request and its response.
        identity: Who asked.
        content_length: What a WSGI app has announced as its answer's length; empty when it has not.
    """

    __slots__ = (
        "_disconnected",
        "_ended",
        "_error",
        "_finish_at",
        "_first_byte_at",
        "_identified",
        "_inside",
        "_is_complete",
        "_is_described",
        "_left",
        "_left_out",
        "_said",
        "_settings",
        "_span",
        "_token",
        "content_length",
        "exchange",
        "identity",
    )

    def __init__(self, exchange: Exchange, settings: Settings) -> None:
        self.exchange = exchange
        self.identity = identity.from_headers(exchange.headers, *settings.identity_headers)
        kept_of_request, kept_of_response = settings.kept_of_bodies(exchange.path)
        exchange.request_body = Body(kept_of_request)
        exchange.response_body = None if exchange.method == "HEAD" else Body(kept_of_response)
        self._settings = settings
        self._span: mlflow_bridge.RootSpan | None = None
        self._inside: mlflow_bridge.TracesInside | None = None
        self._left: mlflow_bridge.Left | None = None
        self._token: tuple[mlflow_bridge.Entered, Token[RequestTrace | None]] | None = None
        self._first_byte_at: int | None = None
        self._finish_at: int | None = None
        self._disconnected = False
        self._identified = settings.identify is None
        self._said = Identity()
        self._error: BaseException | None = None
        self._is_complete = False
        self._is_described = False
        self._ended = False
        self._left_out = False
        self.content_length = ""

    @classmethod
    def open(cls, exchange: Exchange, settings: Settings) -> RequestTrace:
        """Start the trace of an exchange."""
        trace = cls(exchange, settings)
        trace._open_span()
        return trace

    @classmethod
    def of_connection(cls, exchange: Exchange, settings: Settings) -> RequestTrace:
        """Stand for a connection that has no trace of its own: what is known of it goes to each trace opened inside."""
        trace = cls(exchange, settings)
        trace._open_inside()
        return trace

    @property
    def trace_id(self) -> str | None:
        """MLflow's trace id, ``tr-...``; None while tracing is disabled."""
        return self._span.trace_id if self._span else None

    @property
    def settings(self) -> Settings:
        """The options of the middleware that opened it."""
        return self._settings

    @property
    def user_id(self) -> str | None:
        """The user id as it is stored: a pseudonym where ``user_id_hmac_key`` is set."""
        user, key = self.identity.user_id, self._settings.hmac_key
        return identity.pseudonym(user, key) if user and key else user

    # --- the context ---

    @guarded
    def activate(self) -> None:
        """Make this the current request, and its root the current span; later, the span that was current last."""
        if self._left is not None:
            entered = mlflow_bridge.resume(self._left)
        else:
            target = self._target
            entered = target.attach() if target else mlflow_bridge.silence()  # not sampled: nor what is inside
        self._token = (entered, _current.set(self))

    @guarded
    def deactivate(self) -> None:
        """Undo `activate`, in the same context."""
        if self._token is not None:
            entered, token = self._token
            self._token = None
            _current.reset(token)
            left = mlflow_bridge.leave(entered)
            if not self._ended:  # else there is no next step
                self._left = left

    # --- what happens to the request ---

    @guarded
    def received(self, chunk: bytes) -> None:
        """The app has read a piece of the request's body."""
        if self.exchange.request_body is not None:
            self.exchange.request_body.add(chunk)

    @guarded
    def response_started(self, status: int, content_type: str = "", content_encoding: str = "") -> None:
        """The app has answered with a status; framework auth has had its turn."""
        exchange = self.exchange
        exchange.status = int(status)  # it may be an HTTPStatus
        exchange.response_type, exchange.response_encoding = content_type, content_encoding
        self._identify()

    @guarded
    def accepted(self) -> None:
        """The app has accepted a connection; framework auth has had its turn."""
        self._identify()

    @guarded
    def sent(self, chunk: bytes) -> None:
        """The server has taken a piece of the response's body."""
        if chunk and self.exchange.response_body is not None:
            if self._first_byte_at is None:
                self._first_byte_at = time.time_ns()
            self.exchange.response_body.add(chunk)
            if delivery.is_capturing():
                self._sent_to_test()

    @guarded
    def response_headers(self) -> list[tuple[str, str]] | None:
        """Headers for the response: what the client is told, all plain ASCII."""
        user_id, trace_id = self.user_id, None if self._left_out else self.trace_id
        known = {
            "request_id": self.identity.request_id,
            "session_id": self.identity.session_id,
            "user_id": user_id,
            "trace_id": trace_id,
        }
        headers = [
            (header, value)
            for what, header in self._settings.response_headers.items()
            if (value := known[what]) and value.isascii()
        ]
        if trace_id and (keys := self._settings.feedback_keys):
            expires_at = int(time.time()) + feedback_token.LIFETIME
            headers.append((feedback_token.HEADER, feedback_token.sign(trace_id, user_id, expires_at, keys[0])))
        return headers

    def last_byte(self) -> None:
        """The response is complete; what runs on after it does not count."""
        self._finish_at = time.time_ns()

    @guarded
    def failed(self, error: BaseException) -> None:
        """The app raised."""
        if self._disconnected and _tells_that_the_client_is_gone(error):
            return
        if self.exchange.status is None:
            self.exchange.status = 500
        if self._span and error is not self._error:  # frameworks signal an exception, and may raise it as well
            self._error = error
            self._span.fail(error)

    @guarded
    def disconnected(self, certainly: bool = False) -> None:
        """The client went away; once the response is complete that is ordinary, unless it certainly was too early."""
        if self._span and (certainly or self._finish_at is None):
            self._disconnected = True
            self._span.set_attributes({"http.client_disconnected": True})

    @guarded
    def closed(self) -> None:
        """The server has closed a WSGI app's answer. Of one without a body it need not read to the end."""
        is_bodiless = self.exchange.method == "HEAD" or self.exchange.status in (204, 304)
        if self._error is None and not is_bodiless and not self._ended:
            self.disconnected()

    @guarded
    def answered(self) -> None:
        """The client has all of the answer: the trace goes to delivery, open to what the app does until `finish`."""
        span = self._span
        if not self._ended and span:
            self._complete()
            if self._is_kept(span) and span.hold():
                self._ended = True
                self._end(span, is_kept=True)

    def _sent_to_test(self) -> None:
        """While a test captures the trace, the announced length ends it: a test client may read no further."""
        body, length = self.exchange.response_body, self.content_length
        if length.isdecimal() and body and body.size >= int(length):
            self.last_byte()
            self.answered()

    @guarded
    def finish(self) -> None:
        """End the trace and hand it to delivery; further calls do nothing."""
        self._finish(self._span)
        self.exchange.request = None  # it holds this trace: a circle of 32 objects for the garbage collector

    def _finish(self, span: mlflow_bridge.RootSpan | None) -> None:
        if not self._ended:
            self._ended = True
            self._complete()
            if span:
                self._end(span)
        elif span:
            span.release()

    def leave_out(self) -> None:
        """Keep nothing of this request, and count it nowhere: it is none of the app's own."""
        self._left_out = True

    # --- what is known of it ---

    @guarded
    def identify(self) -> None:
        """Ask framework auth who is asking; at the latest this happens when the response starts."""
        self._identify()

    @guarded
    def annotate(self, given: Identity, tags: Mapping[str, object], metadata: Mapping[str, object]) -> None:
        """What the app says of its request; it beats headers and ``identify``."""
        self._said = given.over(self._said)
        self.identity = self._said.over(self.identity)
        if target := self._target:
            self._store_identity(target, given)
            target.update_trace(tags=_texts(tags), metadata=_texts(metadata))

    @guarded
    def _open_span(self) -> None:
        exchange = self.exchange
        if not mlflow_bridge.tracing.can_discard and not self._is_in_sample():
            delivery.sampled_out()
            return
        self._span = mlflow_bridge.open_root_span(
            _method(exchange.method),
            self._describe,
            remote=_remote(exchange),
            adopt_remote=self._settings.trust_incoming_trace,
        )

    def _is_in_sample(self) -> bool:
        """Whether the trace is kept, where that has to be decided before it begins."""
        key = self.identity.session_id or uuid.uuid4().hex
        return sampling.keeps(self._settings, key, failed=False, seconds=0.0)

    @guarded
    def _describe(self, metadata: Mapping[str, str]) -> mlflow_bridge.Description:
        """Say all that is known by now; what comes later is added to the span at once."""
        self._is_described = True  # before anything is read: another thread may be just learning more
        exchange, settings = self.exchange, self._settings
        route, status = (exchange.route, exchange.status) if self._is_complete else (None, None)
        host, of_identity = exchange.headers.get("host", ""), self._identity_metadata()
        is_usual = len(host) <= _MAX_HOST and exchange.method in _METHODS  # nothing else is worth remembering
        said = mlflow_bridge.Description(
            _own_attributes(exchange, settings),
            self._identity_tags(of_identity),
            of_identity,
            self.identity.request_id,
            common=(_common if is_usual else _common.__wrapped__)(
                settings.trace_tag_items,
                exchange.method,
                exchange.scheme,
                host,
                exchange.server,
                exchange.http_version,
                route,
                status,
            ),
        )
        if self._is_complete:
            self._add_outcome(said, {**metadata, **of_identity})
        return said

    @guarded
    def _open_inside(self) -> None:
        self._inside = mlflow_bridge.tracing.TracesInside()
        self._inside.update_trace(self._settings.trace_tags)
        self._store_identity(self._inside, self.identity)

    @property
    def _target(self) -> mlflow_bridge.RootSpan | mlflow_bridge.TracesInside | None:
        return self._span or self._inside

    def _store_identity(self, target: mlflow_bridge.RootSpan | mlflow_bridge.TracesInside, learned: Identity) -> None:
        """Store the parts that were just learned; the app may have set the others with MLflow's own functions."""
        metadata = self._identity_metadata()
        if learned.session_id is None:
            metadata.pop(SESSION_TAG, None)
        if learned.user_id is None:
            metadata.pop(USER_TAG, None)
        if learned.request_id is None:
            target.update_trace(metadata, metadata)
        else:
            target.update_trace(self._identity_tags(metadata), metadata, client_request_id=self.identity.request_id)

    def _identity_metadata(self) -> dict[str, str]:
        metadata = {}
        if session := self.identity.session_id:
            metadata[SESSION_TAG] = session
        if user := self.user_id:
            metadata[USER_TAG] = user
        return metadata

    def _identity_tags(self, metadata: Mapping[str, str]) -> dict[str, str]:
        request_id = self.identity.request_id
        return {CLIENT_REQUEST_ID_TAG: request_id, **metadata} if request_id else {**metadata}

    @guarded
    def _identify(self) -> None:
        if self._identified or self._settings.identify is None:
            return
        self._identified = True
        found = self._settings.identify(self.exchange)
        if found is not None:
            self.identity = self._said.over(found.over(self.identity))
            if self._is_described and self._span:
                self._store_identity(self._span, found)
            elif self._inside:
                self._store_identity(self._inside, found)

    def _complete(self) -> None:
        if self._is_complete:
            return
        if not self._identified:
            self._identify()
        self._is_complete = True
        if self._is_described and self._span:
            self._store_outcome(self._span)

    @guarded
    def _store_outcome(self, span: mlflow_bridge.RootSpan) -> None:
        """Say how the request ended, where all else was said before."""
        exchange = self.exchange
        name, attributes, tags = _of_outcome(exchange.method, exchange.route, exchange.status)
        said = mlflow_bridge.Description(attributes, tags, {}, name=name if exchange.route else None)
        self._add_outcome(said, {key: value for key in (SESSION_TAG, USER_TAG) if (value := span.metadata(key))})
        span.add(said)

    def _add_outcome(self, said: mlflow_bridge.Description, metadata: Mapping[str, str]) -> None:
        """Add how the request ended, but for its route and status, given what metadata its trace has."""
        exchange, attributes, tags = self.exchange, said.attributes, said.tags
        if exchange.status in self._settings.error_statuses:
            said.error = f"HTTP {exchange.status}"
        # The app may have said more with mlflow.update_current_trace(session_id=, user=), which sets metadata only.
        for key, attribute in ((SESSION_TAG, "session.id"), (USER_TAG, "user.id")):
            if value := metadata.get(key):
                said.metadata[key] = tags[key] = attributes[attribute] = self._storable(key, str(value))
        self._add_bodies(attributes)
        if exchange.query_string or self._held_of_bodies():
            said.unread = mlflow_bridge.Unread(functools.partial(_contents, exchange, self._settings), self._held())

    def _add_bodies(self, attributes: dict[str, object]) -> None:
        """https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/, and what a stream's reader feels."""
        sent, answer = self.exchange.request_body, self.exchange.response_body
        if sent and sent.size:
            attributes["http.request.body.size"] = sent.size
        if answer and answer.size:
            attributes["http.response.body.size"] = answer.size
        if self._span and answer and self._first_byte_at and (answer.chunks > 1 or _is_stream(self.exchange)):
            attributes["http.response.chunks"] = answer.chunks
            attributes["http.response.time_to_first_byte"] = round(self._span.seconds(self._first_byte_at), 6)
            attributes["http.response.time_to_last_byte"] = round(self._span.seconds(self._finish_at), 6)

    def _held(self) -> int:
        """Bytes, about, that are kept of the request until its trace is sent."""
        exchange = self.exchange
        headers = sum(map(len, exchange.headers)) + sum(map(len, exchange.headers.values()))
        return headers + len(exchange.path) + len(exchange.query_string) + self._held_of_bodies()

    def _held_of_bodies(self) -> int:
        sent, answer = self.exchange.request_body, self.exchange.response_body
        return (sent.held if sent else 0) + (answer.held if answer else 0)

    def _storable(self, key: str, value: str) -> str:
        """A session or user id as MLflow's own functions set it; a user id as a pseudonym where that is wanted."""
        hmac_key = self._settings.hmac_key
        if key == USER_TAG and hmac_key and value != self.user_id:
            return identity.pseudonym(value, hmac_key)
        return value

    def _end(self, span: mlflow_bridge.RootSpan, is_kept: bool = False) -> None:
        if self._left_out:
            span.discard()
        elif not (is_kept or self._is_kept(span)) and span.discard():
            delivery.sampled_out()
        span.end(self._finish_at, self._held())

    def _is_kept(self, span: mlflow_bridge.RootSpan) -> bool:
        if self._settings.sample_ratio >= 1.0:
            return True
        known = None if self._is_described else self.identity.session_id
        session = known or span.metadata(SESSION_TAG)  # which has it described, if only to be dropped
        failed = span.failed or self.exchange.status in self._settings.error_statuses
        return sampling.keeps(
            self._settings, session or span.trace_id, failed=failed, seconds=span.seconds(self._finish_at)
        )


@guarded
def _contents(exchange: Exchange, settings: Settings) -> mlflow_bridge.Contents:
    """What becomes the root's inputs and outputs."""
    sent, answer = contents.fill(exchange, settings.redactor, settings.max_body_bytes, settings.mask)
    bodies = (("request", exchange.inputs_cut), ("response", exchange.outputs_cut))
    cut = {f"http.{name}.body.cut": True for name, is_cut in bodies if is_cut}
    inputs = _written(exchange.inputs, sent.text, previews.of_request)
    outputs = _written(exchange.outputs, answer.text, previews.of_answer)
    return mlflow_bridge.Contents(inputs, outputs, answer.usage, cut)


def _written(value: object, text: str | None, preview: Callable[[object], str | None]) -> mlflow_bridge.Written | None:
    if value is None:
        return None
    if text is None:
        value, text = strict_json.written(value)
    said = preview(value)
    if said is None:  # then it is the JSON that people see
        value, text = strict_json.written(value)
    return mlflow_bridge.Written(text, said or text)


def _is_stream(exchange: Exchange) -> bool:
    return exchange.response_type.lower().startswith("text/event-stream")


def _tells_that_the_client_is_gone(error: BaseException) -> bool:
    """Whether this is what servers and frameworks raise for it; Starlette's own has no other name."""
    if inner := getattr(error, "exceptions", None):  # a group of them
        return all(map(_tells_that_the_client_is_gone, inner))
    return isinstance(error, OSError | GeneratorExit) or type(error).__name__ in ("ClientDisconnect", "CancelledError")


def current() -> RequestTrace | None:
    """The trace of the request that this code runs in."""
    return _current.get()


def annotate(
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    request_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> None:
    """Say more of the current request; from anywhere inside it. Outside a request it does nothing.

    Args:
        user_id: Who asked; beats the header and ``identify``. Stored as a pseudonym where ``user_id_hmac_key`` is set.
        session_id: The conversation; beats the header and ``identify``.
        request_id: The request's id; beats the header.
        tags: Trace tags, for search. Values become text, control characters are replaced.
        metadata: Trace metadata: like tags, but it can not be changed later.
    """
    trace = current()
    if trace is not None:
        trace.annotate(Identity(request_id, session_id, user_id), tags or {}, metadata or {})


def outbound_headers() -> dict[str, str]:
    """Headers that carry this request's identity to the next service: ``traceparent`` and the three ids.

    The ids go under the names that this app reads them from, the user id as it came (the next service applies its
    own ``user_id_hmac_key``). An id that is not plain ASCII is left out: HTTP clients refuse such values. Outside a
    request the answer is empty.
    """
    trace = current()
    return (trace and _outbound(trace)) or {}


@guarded
def _outbound(trace: RequestTrace) -> dict[str, str]:
    settings, who = trace._settings, trace.identity
    ids = {
        settings.request_id_header: who.request_id,
        settings.session_id_header: who.session_id,
        settings.user_id_header: who.user_id,
    }
    headers = {name: value for name, value in ids.items() if value and value.isascii()}
    if span := mlflow_bridge.current_span():
        headers["traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-01"
    return headers


def start(settings: Settings) -> None:
    """Called once by each middleware when it is built: from here on, finished traces are delivered."""
    if settings.enabled:
        _start(settings)


@guarded
def _start(settings: Settings) -> None:
    delivery.start(settings)


def _method(method: str) -> str:
    """The method for names; what is no known method becomes ``HTTP``, as OpenTelemetry has it."""
    return method if method in _METHODS else "HTTP"


@functools.lru_cache(maxsize=512)
def _common(
    trace_tags: tuple[tuple[str, str], ...],
    method: str,
    scheme: str,
    host: str,
    server: tuple[str, int | None] | None,
    http_version: str,
    route: str | None,
    status: int | None,
) -> mlflow_bridge.Common:
    """What many requests have in common: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server"""
    known = method in _METHODS
    address, port = _server(host, server)
    name, outcome, tags = _of_outcome(method, route, status)
    attributes: dict[str, object] = {
        "http.request.method": method if known else "_OTHER",
        "http.request.method_original": None if known else clean_text(method, MAX_ATTRIBUTE),
        "url.scheme": scheme,
        "server.address": clean_text(address, MAX_ATTRIBUTE),
        "server.port": port,
        "network.protocol.version": http_version or None,
        **outcome,
    }
    return mlflow_bridge.in_common(name, _known(attributes), {**dict(trace_tags), **tags})


def _of_outcome(method: str, route: str | None, status: int | None) -> tuple[str, dict[str, object], dict[str, str]]:
    """The name, the attributes and the tags that a route and a status give."""
    route = clean_text(route, MAX_ATTRIBUTE)
    attributes: dict[str, object] = {"http.route": route, "http.response.status_code": status}
    tags = {"http.route": route or "", "http.status_code": "" if status is None else str(status)}
    name = f"{_method(method)} {route}" if route else _method(method)
    return name, _known(attributes), {key: value for key, value in tags.items() if value}


def _own_attributes(exchange: Exchange, settings: Settings) -> dict[str, object]:
    """What few other requests have, too."""
    query = exchange.query_string[:_MAX_QUERY]
    attributes: dict[str, object] = {
        "url.path": clean_text(exchange.path, MAX_ATTRIBUTE),
        "url.query": clean_text(settings.redactor.query(query), MAX_ATTRIBUTE) if query else None,
        "client.address": exchange.client or None,
        "user_agent.original": clean_text(exchange.headers.get("user-agent"), MAX_ATTRIBUTE),
    }
    for header in settings.capture_headers:
        name = header.lower()
        value = clean_text(identity.decode_header(exchange.headers.get(name)), MAX_ATTRIBUTE)
        if value:
            attributes[f"http.request.header.{name}"] = [settings.redactor.value(header, value)]
    return _known(attributes)


def _known(attributes: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in attributes.items() if value is not None}


def _server(host: str, server: tuple[str, int | None] | None) -> tuple[str | None, int | None]:
    """Where the request was sent to: what its ``Host`` says, else what the server knows."""
    match = _HOST.fullmatch(host)
    if match is None:
        return server or (None, None)
    return match[1].strip("[]"), int(match[2]) if match[2] else None


def _remote(exchange: Exchange) -> mlflow_bridge.SpanIds | None:
    """The caller's span. Its sampled flag is not honoured: whoever set it decided for another tracing system."""
    match = _TRACEPARENT.fullmatch(exchange.headers.get("traceparent", "").strip())
    if match is None:
        return None
    caller = mlflow_bridge.SpanIds(int(match[1], 16), int(match[2], 16))
    return caller if all(caller) else None  # zero is no id


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Tags or metadata as a server stores them."""
    pairs = ((clean_text(key), clean_text(value, MAX_TAG_VALUE)) for key, value in values.items())
    return {key: value for key, value in pairs if key and value is not None}
