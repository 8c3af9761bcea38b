"""The record of one request: all that the middleware knows of it, from its first byte until its trace is encoded.

It is plain data, and the source of truth for everything that the middleware reports. Updates replace values instead of
mutating them, so that the sender reads it without a lock while the app goes on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import getsizeof
from types import MappingProxyType
from typing import NamedTuple

from mlflow_middleware import identity
from mlflow_middleware.capture.body import Body, UnstoredBody
from mlflow_middleware.capture.error_rules import Failure
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.identity import Identity
from mlflow_middleware.settings import Settings
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.common import Common

NOTHING: Mapping[str, str] = MappingProxyType({})


JOINED = "mlflow_middleware.joined"
"""Metadata on the way to the server only: the trace is a caller's, whose id came with the request. The value is
`SPANS_ONLY`, or anything else where a request of ours is in it, of which there is more to tell."""

SPANS_ONLY = "spans"
"""See `JOINED`."""

CONTINUED = "mlflow_middleware.continued"
"""Metadata on the way to the server only: the spans are added to a trace that an earlier request has begun."""


KEPT = "kept"
"""See `TraceRecord.verdict`."""


class SpanIds(NamedTuple):
    """A span as OpenTelemetry and W3C trace contexts name it."""

    trace_id: int
    span_id: int


class RecordedException(NamedTuple):
    """An exception, as OpenTelemetry records one.

    Attributes:
        time: Nanoseconds since the epoch.
        attributes: https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/#attributes
        type: The name of its class, for ``error.type``.
    """

    time: int
    attributes: dict[str, str]
    type: str


@dataclass(slots=True)
class Surroundings:
    """What a trace is given by where it begins: an active run, ``mlflow.tracing.context``, a connection.

    Attributes:
        tags: Of the trace.
        metadata: Of the trace.
        client_request_id: Of the trace, if any.
    """

    tags: Mapping[str, str]
    metadata: Mapping[str, str]
    client_request_id: str | None


class Written(NamedTuple):
    """What a trace holds of a body.

    Attributes:
        text: Its JSON.
        preview: What a person would read of it.
    """

    text: str
    preview: str


@dataclass(slots=True)
class Contents:
    """The inputs and outputs of a request, read from its bodies.

    Attributes:
        inputs: The root's inputs; None for none.
        outputs: The root's outputs; None for none.
        usage: Tokens used, as MLflow has it: ``input_tokens``, ``output_tokens``, ``total_tokens``.
        attributes: More of the root's attributes.
        files: Those taken out of inputs and outputs, by the ids that refer to them there.
        call: Which model answered, if any did.
    """

    inputs: Written | None
    outputs: Written | None
    usage: Mapping[str, int] | None
    attributes: Mapping[str, object]
    files: Mapping[str, bytes] = field(default_factory=dict)
    call: Common | None = None


NO_CONTENTS = Contents(None, None, None, {})


class TraceRecord:
    """All that the middleware knows of one request.

    Attributes:
        exchange: The request and its response.
        settings: The options of the middleware that it came through.
        identity: Who asked.
        tags: What the app has annotated.
        metadata: What the app has annotated.
        exceptions: Those that the app raised.
        others: Attributes with the ids that other tracing tools have for the request.
        first_byte_at: When the client had the first byte of the answer; nanoseconds since the epoch.
        is_complete: Whether route, status and bodies are final.
        client_disconnected: Whether the client went away.
        is_changed: Whether something came after it was encoded last.
        trace_id: MLflow's trace id, ``tr-`` and 32 hexadecimal digits; empty while there is no trace.
        ids: Those of the root span.
        parent_id: The caller's span, where that is trusted to be the parent.
        caller: The caller's span, where it is only linked to.
        start_time: Nanoseconds since the epoch.
        end_time: Nanoseconds since the epoch; None while the request runs.
        experiment_id: Where the trace goes, an id or a name; None for the experiment that the environment names.
        surroundings: What the trace has from where it began, if anything.
        contents: The inputs and outputs, once its bodies have been read.
        failure: Why the answer is an error by ``error_when``, once that has been asked.
        is_judged: Whether it has been.
        held: An exception that the framework is about to answer.
        is_route_said: Whether the app itself has told the route.
        is_promised: Whether the client was told that its trace will be there, by a token to continue it.
        verdict: What the app has decided about the trace: `KEPT`, or why nobody wants it; empty if nothing.
        is_genai: Whether the bodies look like a language model's traffic, once that has been asked.
        is_unwanted: Whether that is that there is to be no trace.
        is_unrouted: Whether the framework has looked for a route in vain, where that is known only for a while.
        is_directed: Whether the app has chosen the experiment inside the request.
        usual_experiment_id: Where it would go without the option ``experiment``; empty where that is not set.
    """

    trace_id = ""
    ids: SpanIds
    parent_id: int | None = None
    caller: SpanIds | None = None
    start_time = 0
    end_time: int | None = None
    first_byte_at: int | None = None
    experiment_id: str | None = None
    surroundings: Surroundings | None = None
    tags: Mapping[str, str] = NOTHING
    metadata: Mapping[str, str] = NOTHING
    exceptions: tuple[RecordedException, ...] = ()
    others: Mapping[str, str] = NOTHING
    contents: Contents | None = None
    failure: Failure | None = None
    is_judged = False
    held: BaseException | None = None
    is_complete = client_disconnected = is_changed = is_route_said = is_promised = False
    verdict = ""
    is_genai: bool | None = None
    is_unwanted = is_directed = is_unrouted = False
    usual_experiment_id: str | None = ""

    def __init__(self, exchange: Exchange, settings: Settings) -> None:
        if settings.routes:
            settings = settings.of_routes.of(exchange.method, exchange.path)
        keeping = settings.keeping(exchange.path)
        is_kept = keeping.of_request or not settings.looks_into_bodies
        exchange.request_body = Body(keeping.of_request) if is_kept else UnstoredBody(settings.max_body_bytes)
        exchange.response_body = None if exchange.method == "HEAD" else Body(keeping.of_response)
        self.exchange = exchange
        self.settings = settings
        if sources := settings.identity_sources:
            self.identity = sources.at_once(exchange)
        else:
            self.identity = identity.from_headers(exchange.headers, *settings.identity_headers)

    def begin(self, ids: SpanIds, start_time: int) -> None:
        """Assign the ids and the start of its trace."""
        self.ids = ids
        self.trace_id = f"tr-{ids.trace_id:032x}"
        self.start_time = start_time

    def go_to(self, usual: str | None) -> None:
        """Choose the experiment: the one of its options, or the usual one."""
        self.usual_experiment_id = usual
        self.experiment_id = self.settings.experiment or usual

    def decide(self, verdict: str) -> None:
        """Take what the app decides about the trace."""
        self.verdict = verdict
        self.is_unwanted = verdict != KEPT

    def annotate(self, tags: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        """Add tags and metadata from the app."""
        self.tags = {**self.tags, **tags}
        self.metadata = {**self.metadata, **metadata}
        self.is_changed = True

    def learn(self, who: Identity) -> None:
        """Replace the identity by a better one."""
        self.identity = who
        self.is_changed = True

    def fail(self, error: BaseException) -> None:
        """Record an exception."""
        kind = type(error).__qualname__
        attributes = {
            "exception.type": type(error).__name__,
            "exception.message": str(error),
            "exception.stacktrace": "".join(traceback.format_exception(error)).strip(),
        }
        self.exceptions = (*self.exceptions, RecordedException(time.time_ns(), attributes, kind))
        self.is_changed = True

    @property
    def user_id(self) -> str | None:
        """The user id as it is stored: a pseudonym where ``user_id_hmac_key`` is set."""
        user, key = self.identity.user_id, self.settings.hmac_key
        return identity.pseudonym(user, key) if user and key else user

    def identity_metadata(self) -> dict[str, str]:
        """Session and user, as far as they are known."""
        metadata = {}
        if session := self.identity.session_id:
            metadata[keys.SESSION] = session
        if user := self.user_id:
            metadata[keys.USER] = user
        return metadata

    def identity_tags(self) -> dict[str, str]:
        """Session, user and request id, as far as they are known."""
        request_id, metadata = self.identity.request_id, self.identity_metadata()
        return {keys.CLIENT_REQUEST_ID: request_id, **metadata} if request_id else metadata

    @property
    def keeps_words(self) -> bool:
        """Whether anything is stored that may be what somebody said."""
        return self.settings.keeping(self.exchange.path).words

    @property
    def failed(self) -> bool:
        """Whether the request ended with an error."""
        return bool(self.exceptions) or self.exchange.status in self.settings.error_statuses or self.failure is not None

    def seconds(self, until: int | None = None) -> float:
        """How long the request has taken, until now or a time in nanoseconds since the epoch."""
        return ((until or self.end_time or time.time_ns()) - self.start_time) / 1e9

    @property
    def size(self) -> int:
        """Bytes, about, that it holds until its trace is encoded."""
        size = _SIZE + self.exchange.held + self.held_of_bodies
        if self.is_changed:
            texts = [*self.tags, *self.metadata, *self.tags.values(), *self.metadata.values()]
            texts += [text for each in self.exceptions for text in each.attributes.values()]
            size += sum(map(getsizeof, texts)) + _ITEM * len(texts)
        return size

    @property
    def held_of_bodies(self) -> int:
        """Bytes that are kept of its bodies."""
        sent, answer = self.exchange.request_body, self.exchange.response_body
        return (sent.held if sent else 0) + (answer.held if answer else 0)

    def forget_contents(self) -> None:
        """Skip its inputs and outputs: there is no time or no room to read them."""
        if self.contents is None:
            self.contents = NO_CONTENTS

    def drop_bodies(self) -> None:
        """Let go of the bodies: the trace is encoded, and nothing more will come."""
        exchange = self.exchange
        exchange.request_body = exchange.response_body = exchange.inputs = exchange.outputs = None
        self.contents = NO_CONTENTS


_SIZE = 2500
"""Bytes, about, of a request's trace without its bodies, path and headers."""

_ITEM = 40
"""Bytes, about, that a text takes in a dictionary besides its own."""
