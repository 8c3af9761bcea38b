"""The record of one request: the middleware's entire knowledge of it, from its first byte until its trace is encoded.

It is plain data, and the source of truth for everything that the middleware reports. Updates replace values instead of
mutating them, so that the sender can read it without a lock while the app continues.
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
"""Metadata in transit to the server only: the trace is a caller's, whose id came with the request. The value is
`SPANS_ONLY`, or any other if the trace contains a request of this process, which has an info to send."""

SPANS_ONLY = "spans"
"""See `JOINED`."""

CONTINUED = "mlflow_middleware.continued"
"""Metadata in transit to the server only: the spans are added to a trace that an earlier request has begun."""


KEPT = "kept"
"""See `TraceRecord.verdict`."""


class SpanIds(NamedTuple):
    """The ids of a span, as in OpenTelemetry and W3C trace contexts."""

    trace_id: int
    span_id: int


class RecordedException(NamedTuple):
    """An exception in OpenTelemetry's form.

    Attributes:
        time: When it was raised, in nanoseconds since the epoch.
        attributes: https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/#attributes
        type: The name of its class, for ``error.type``.
    """

    time: int
    attributes: dict[str, str]
    type: str


@dataclass(slots=True)
class Surroundings:
    """The values that a trace gets from its surroundings: an active run, ``mlflow.tracing.context``, a connection.

    Attributes:
        tags: The trace's tags.
        metadata: The trace's metadata.
        client_request_id: The trace's client request id, if any.
    """

    tags: Mapping[str, str]
    metadata: Mapping[str, str]
    client_request_id: str | None


class Written(NamedTuple):
    """The stored form of a body.

    Attributes:
        text: The body as JSON.
        preview: The readable preview.
    """

    text: str
    preview: str


@dataclass(slots=True)
class Contents:
    """The inputs and outputs of a request, read from its bodies.

    Attributes:
        inputs: The root's inputs, if any.
        outputs: The root's outputs, if any.
        usage: Number of tokens with MLflow's keys: ``input_tokens``, ``output_tokens``, ``total_tokens``.
        attributes: Further attributes of the root.
        files: Files extracted from inputs and outputs, by the ids that refer to them there.
        call: The attributes of the model that answered, if any.
    """

    inputs: Written | None
    outputs: Written | None
    usage: Mapping[str, int] | None
    attributes: Mapping[str, object]
    files: Mapping[str, bytes] = field(default_factory=dict)
    call: Common | None = None


NO_CONTENTS = Contents(None, None, None, {})


class TraceRecord:
    """The middleware's entire knowledge of one request.

    Attributes:
        exchange: The request and its response.
        settings: The settings of the middleware that it came through, with the options of the route.
        keeping: The limits on what is read and stored of it.
        identity: The user, session and request id.
        tags: Tags from the app.
        metadata: Metadata from the app.
        exceptions: The app's exceptions.
        others: Attributes with the ids of the request in other tracing tools.
        first_byte_at: When the first byte of the response was sent, in nanoseconds since the epoch.
        is_complete: Whether route, status and bodies are final.
        client_disconnected: Whether the client disconnected.
        is_changed: Whether it has changed since it was last encoded.
        trace_id: MLflow's trace id, ``tr-`` and 32 hexadecimal digits; empty while there is no trace.
        ids: The ids of the root span.
        parent_id: The caller's span, if it is trusted to be the parent.
        caller: The caller's span, if it is only linked to.
        start_time: Start, in nanoseconds since the epoch.
        end_time: End, in nanoseconds since the epoch; None while the request runs.
        experiment_id: Id or name of the trace's experiment; None for the experiment that the environment specifies.
        surroundings: The values from the trace's surroundings, if any.
        contents: The inputs and outputs, after the bodies have been read.
        failure: Why the response is an error according to ``error_when``, after it has been judged.
        is_judged: Whether it has been judged.
        held: An exception that the framework is about to handle.
        is_route_explicit: Whether the app itself has set the route.
        is_promised: Whether the client was promised the trace, by a token to continue it.
        verdict: The app's decision about the trace: `KEPT`, the reason to drop it, or empty.
        is_genai: Whether the bodies look like a language model's traffic; None until it has been checked.
        is_unwanted: Whether the app has decided to drop the trace.
        is_unrouted: Whether the framework has found no route, for frameworks where this is known only temporarily.
        is_directed: Whether the app has chosen the experiment inside the request.
        usual_experiment_id: The experiment without the option ``experiment``; empty if that is not set.
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
    is_complete = client_disconnected = is_changed = is_route_explicit = is_promised = False
    verdict = ""
    is_genai: bool | None = None
    is_unwanted = is_directed = is_unrouted = False
    usual_experiment_id: str | None = ""

    def __init__(self, exchange: Exchange, settings: Settings) -> None:
        if settings.routes:
            settings = settings.of_routes.of(exchange.method, exchange.path)
        self.exchange = exchange
        self.use(settings)
        keeping = self.keeping
        is_kept = keeping.of_request or not settings.looks_into_bodies
        exchange.request_body = Body(keeping.of_request) if is_kept else UnstoredBody(settings.max_body_bytes)
        exchange.response_body = None if exchange.method == "HEAD" else Body(keeping.of_response)
        if sources := settings.identity_sources:
            self.identity = sources.at_once(exchange)
        else:
            self.identity = identity.from_headers(exchange.headers, *settings.identity_headers)

    def use(self, settings: Settings) -> None:
        """Apply settings, such as those of the matched route."""
        self.settings = settings
        self.keeping = settings.keeping(self.exchange.path)

    def begin(self, ids: SpanIds, start_time: int) -> None:
        """Assign the ids and the start time of its trace."""
        self.ids = ids
        self.trace_id = f"tr-{ids.trace_id:032x}"
        self.start_time = start_time

    def go_to(self, usual: str | None) -> None:
        """Choose the experiment: the one in the options, or the usual one."""
        self.usual_experiment_id = usual
        self.experiment_id = self.settings.experiment or usual

    def decide(self, verdict: str) -> None:
        """Record the app's decision about the trace."""
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
        """The stored user id: a pseudonym if ``user_id_hmac_key`` is set."""
        user, key = self.identity.user_id, self.settings.hmac_key
        return identity.pseudonym(user, key) if user and key else user

    def identity_metadata(self) -> dict[str, str]:
        """Return session and user, if known."""
        metadata = {}
        if session := self.identity.session_id:
            metadata[keys.SESSION] = session
        if user := self.user_id:
            metadata[keys.USER] = user
        return metadata

    def identity_tags(self) -> dict[str, str]:
        """Return session, user and request id, if known."""
        request_id, metadata = self.identity.request_id, self.identity_metadata()
        return {keys.CLIENT_REQUEST_ID: request_id, **metadata} if request_id else metadata

    @property
    def keeps_words(self) -> bool:
        """Whether texts are stored that users or models may have written."""
        return self.keeping.words

    @property
    def failed(self) -> bool:
        """Whether the request ended with an error."""
        return bool(self.exceptions) or self.exchange.status in self.settings.error_statuses or self.failure is not None

    def seconds(self, until: int | None = None) -> float:
        """Return the duration of the request in seconds, until now or until a time in nanoseconds since the epoch."""
        return ((until or self.end_time or time.time_ns()) - self.start_time) / 1e9

    @property
    def size(self) -> int:
        """Approximate size until its trace is encoded, in bytes."""
        size = _SIZE + self.exchange.held + self.held_of_bodies
        if self.is_changed:
            texts = [*self.tags, *self.metadata, *self.tags.values(), *self.metadata.values()]
            texts += [text for each in self.exceptions for text in each.attributes.values()]
            size += sum(map(getsizeof, texts)) + _ITEM * len(texts)
        return size

    @property
    def held_of_bodies(self) -> int:
        """Size of the recorded bodies, in bytes."""
        sent, answer = self.exchange.request_body, self.exchange.response_body
        return (sent.held if sent else 0) + (answer.held if answer else 0)

    def forget_contents(self) -> None:
        """Skip the inputs and outputs, for lack of time or memory."""
        if self.contents is None:
            self.contents = NO_CONTENTS

    def drop_bodies(self) -> None:
        """Release the bodies: the trace is encoded, and nothing more will come."""
        exchange = self.exchange
        exchange.request_body = exchange.response_body = exchange.inputs = exchange.outputs = None
        self.contents = NO_CONTENTS


_SIZE = 2500
"""Approximate size of a request's trace without bodies, path and headers, in bytes."""

_ITEM = 40
"""Approximate overhead of a text in a dictionary, in bytes."""
