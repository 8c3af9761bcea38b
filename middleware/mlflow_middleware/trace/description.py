"""The description of a request for OpenTelemetry and MLflow: pure functions of its record.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_middleware import identity
from mlflow_middleware.capture import MAX_ATTRIBUTE
from mlflow_middleware.exchange import Exchange, Job
from mlflow_middleware.identity import clean_text
from mlflow_middleware.settings import EveryTrace
from mlflow_middleware.trace import keys, wire
from mlflow_middleware.trace.client import client_attributes, redacted_exceptions
from mlflow_middleware.trace.common import Common
from mlflow_middleware.trace.failure import judge
from mlflow_middleware.trace.origin import origin_of
from mlflow_middleware.trace.record import NOTHING, RecordedException, TraceRecord

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_MAX_HOST = 255
"""Maximum length of a host name, in characters: https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4"""
_DEPLOYMENT = {"environment": "deployment.environment.name", "app_version": "service.version"}
"""Tag -> attribute: https://opentelemetry.io/docs/specs/semconv/resource/"""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@]+)(?::([0-9]{1,5}))?")


@dataclass(slots=True)
class Description:
    """The content of a request's trace at a given time.

    Attributes:
        name: The name of the root span and of the trace.
        common: Attributes and tags that the traces of other requests share.
        attributes: Further attributes of the root; values that JSON can represent.
        texts: Further attributes of the root, as JSON.
        tags: Further tags of the trace.
        metadata: The trace's metadata.
        client_request_id: The trace's client request id, if a server can store it.
        error: The message of the error status; None for no error.
        request_preview: A readable preview of the inputs.
        response_preview: A readable preview of the outputs.
        state: The trace's state, if the app has set one.
        exceptions: The app's exceptions.
        call: The attributes of the model that answered, if any.
    """

    name: str
    common: Common
    attributes: dict[str, Any]
    texts: dict[str, str]
    tags: dict[str, str]
    metadata: dict[str, str]
    client_request_id: str | None
    error: str | None
    request_preview: str | None = None
    response_preview: str | None = None
    state: str | None = None
    exceptions: tuple[RecordedException, ...] = ()
    call: Common | None = None

    def all_attributes(self) -> dict[str, Any]:
        """Return the root's attributes, except those that are JSON."""
        of_call = self.call.attributes if self.call else NOTHING
        return {**self.common.attributes, **of_call, **self.attributes}

    def all_tags(self) -> dict[str, str]:
        """Return the trace's tags."""
        return {keys.NAME: self.name, **self.common.tags, **self.tags}


def method_name(method: str) -> str:
    """Return the method for use in names; an unknown method is ``HTTP``, as in OpenTelemetry."""
    return method if method in _METHODS else "HTTP"


def first_name(exchange: Exchange) -> str:
    """Return the name of a root at its start: a job's is final, a request's has no route yet."""
    return exchange.path if isinstance(exchange, Job) else method_name(exchange.method)


def describe(record: TraceRecord, metadata: Mapping[str, str] = NOTHING) -> Description:
    """Describe the current state of a request, without its inputs and outputs.

    Args:
        record: The record of the request.
        metadata: Trace metadata that the app set with MLflow's own functions.
    """
    if record.settings.error_when:
        judge(record)
    is_job = isinstance(record.exchange, Job)
    common = _common_of_job(record) if is_job else _common_of(record)
    exceptions = redacted_exceptions(record) if record.exceptions else ()
    attributes = _of_job(record) if is_job else _known({**client_attributes(record), **record.others})
    known, tags = metadata_of(record, metadata), {}
    request_id = client_request_id = record.identity.request_id
    if request_id:
        tags[keys.CLIENT_REQUEST_ID] = request_id
    if surrounding := record.surroundings:
        around = {key: tag for key, tag in surrounding.tags.items() if key != keys.NAME and key not in common.tags}
        tags.update(storable(record, around))
    if request_id is None or len(request_id) > keys.MAX_CLIENT_REQUEST_ID:
        client_request_id = surrounding.client_request_id if surrounding else None
    if record.tags:
        tags.update(storable(record, record.tags))
    if session := known.get(keys.SESSION):
        tags[keys.SESSION] = session
        attributes["session.id"] = attributes["gen_ai.conversation.id"] = session[: keys.MAX_METADATA]
    if user := known.get(keys.USER):
        tags[keys.USER] = attributes["user.id"] = user
        if record.settings.hmac_key:
            attributes["user.hash"] = user
    if record.is_complete and not is_job:
        _add_outcome(attributes, record)
    return Description(
        common.name,
        common,
        attributes,
        {},
        tags,
        known,
        client_request_id,
        _error_of(record, exceptions),
        exceptions=exceptions,
    )


def metadata_of(record: TraceRecord, metadata: Mapping[str, str] = NOTHING) -> dict[str, str]:
    """Return the metadata of a request's trace: see `describe`."""
    known = record.identity_metadata()
    if record.surroundings:
        known = {**storable(record, record.surroundings.metadata), **known}
    if record.metadata or metadata:
        known.update(storable(record, {**record.metadata, **metadata}))
    return known


def storable(record: TraceRecord, given: Mapping[str, str]) -> Mapping[str, str]:
    """Return tags or metadata with a pseudonym for the user, if one is configured."""
    user, key = given.get(keys.USER), record.settings.hmac_key
    if not (user and key) or user == record.user_id:
        return given
    return {**given, keys.USER: identity.pseudonym(str(user), key)}


def _error_of(record: TraceRecord, exceptions: Sequence[RecordedException]) -> str | None:
    if exceptions:
        last = exceptions[-1].attributes
        has_message = "exception.message" in last
        return f"{last['exception.type']}: {last['exception.message']}" if has_message else last["exception.type"]
    if record.failure:
        return record.failure.message if record.keeps_words else record.failure.type
    is_error = record.is_complete and record.exchange.status in record.settings.error_statuses
    return f"HTTP {record.exchange.status}" if is_error else None


def _add_outcome(attributes: dict[str, Any], record: TraceRecord) -> None:
    """Add the outcome (https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/) and a stream's timing."""
    exchange = record.exchange
    sent, answer = exchange.request_body, exchange.response_body
    if record.client_disconnected:
        attributes["http.client_disconnected"] = True
    if record.exceptions:
        attributes["error.type"] = record.exceptions[-1].type
    elif record.failure:
        attributes["error.type"] = record.failure.type
    elif exchange.status is not None and exchange.status >= 500:
        attributes["error.type"] = str(exchange.status)
    if sent and sent.size:
        attributes["http.request.body.size"] = sent.size
    if answer and answer.size:
        attributes["http.response.body.size"] = answer.size
        first = record.first_byte_at
        if first and (answer.chunks > 1 or exchange.response_type.lower().startswith("text/event-stream")):
            attributes["http.response.chunks"] = answer.chunks
            attributes["http.response.time_to_first_byte"] = round(record.seconds(first), 6)
            attributes["http.response.time_to_last_byte"] = round(record.seconds(), 6)


def _of_job(record: TraceRecord) -> dict[str, Any]:
    return {"error.type": record.exceptions[-1].type} if record.exceptions else {}


def _common_of_job(record: TraceRecord) -> Common:
    every = record.settings.of_every_trace
    return Common(record.exchange.path, _known(_of_app(every)), dict(every.tags), wire.CONSUMER)


def _of_app(every: EveryTrace) -> dict[str, object]:
    of_deployment = dict(every.tags)
    return {keys.SPAN_TYPE: every.span_type, **{name: of_deployment.get(tag) for tag, name in _DEPLOYMENT.items()}}


def _common_of(record: TraceRecord) -> Common:
    exchange = record.exchange
    trusted = record.settings.trusted_networks
    origin = trusted and origin_of(exchange, trusted)
    host = origin.host if origin else exchange.headers.get("host", "")
    is_usual = len(host) <= _MAX_HOST and exchange.method in _METHODS  # only usual values are worth caching
    route, status = (exchange.route, exchange.status) if record.is_complete else (None, None)
    return (_common if is_usual else _common.__wrapped__)(
        record.settings.of_every_trace,
        exchange.method,
        origin.scheme if origin else exchange.scheme,
        host,
        exchange.server,
        exchange.http_version,
        route,
        status,
    )


@functools.lru_cache(maxsize=512)
def _common(
    every: EveryTrace,
    method: str,
    scheme: str,
    host: str,
    server: tuple[str, int | None] | None,
    http_version: str,
    route: str | None,
    status: int | None,
) -> Common:
    """Return the common part of many requests."""
    known = method in _METHODS
    address, port = _server(host, server)
    route = clean_text(route, MAX_ATTRIBUTE)
    attributes: dict[str, object] = {
        **_of_app(every),
        "http.request.method": method if known else "_OTHER",
        "http.request.method_original": None if known else clean_text(method, MAX_ATTRIBUTE),
        "url.scheme": scheme,
        "server.address": clean_text(address, MAX_ATTRIBUTE),
        "server.port": port,
        "network.protocol.version": http_version or None,
        "http.route": route,
        "http.response.status_code": status,
    }
    tags = {"http.route": route or "", "http.status_code": "" if status is None else str(status)}
    name = f"{method_name(method)} {route}" if route else method_name(method)
    return Common(name, _known(attributes), {**dict(every.tags), **{key: tag for key, tag in tags.items() if tag}})


def _known(attributes: Mapping[str, object]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if value is not None}


def _server(host: str, server: tuple[str, int | None] | None) -> tuple[str | None, int | None]:
    """Return the host and port that the request was sent to: from its ``Host`` header, or from the server."""
    match = _HOST.fullmatch(host)
    if match is None:
        return server or (None, None)
    return match[1].strip("[]"), int(match[2]) if match[2] else None
