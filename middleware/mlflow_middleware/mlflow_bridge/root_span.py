"""What the middleware says of a request, and the span and trace that take it; nothing here needs MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mlflow_middleware.mlflow_bridge import keys
from mlflow_middleware.mlflow_bridge.common import Common

Undo = Callable[[], object]
"""Makes current again what was current before; to be called in the same context."""

Entered = Any
"""What `attach` and `resume` return, and `leave` takes."""

Left = Any
"""What `leave` returns, and `resume` takes."""


class SpanIds(NamedTuple):
    """A span as OpenTelemetry and W3C trace contexts name it."""

    trace_id: int
    span_id: int


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
    """What a request's bodies say.

    Attributes:
        inputs: The root's inputs; None for none.
        outputs: The root's outputs; None for none.
        usage: Tokens used, as MLflow has it: ``input_tokens``, ``output_tokens``, ``total_tokens``.
        attributes: More of the root's attributes.
    """

    inputs: Written | None
    outputs: Written | None
    usage: Mapping[str, int] | None
    attributes: Mapping[str, object]


@dataclass(slots=True)
class Unread:
    """What is still to be read for a root: how, and the bytes that it holds until then."""

    read: Callable[[], Contents | None]
    size: int


@dataclass(slots=True)
class Description:
    """What a request gives to its root span, and to the trace.

    Attributes:
        attributes: Of the span; values are anything that JSON can hold.
        tags: Of the trace.
        metadata: The same.
        client_request_id: The same; only where the server can store it.
        name: The span's name, and the trace's; None leaves it.
        common: Name, attributes and tags that other requests have, too.
        error: What the error status says, unless an exception was recorded; None for no error.
        unread: What becomes inputs and outputs. The sender reads it, out of the request's way; where MLflow's own
            exporter has to find them, or one of the app's span processors, it is read when the span ends.
    """

    attributes: dict[str, object]
    tags: dict[str, str]
    metadata: dict[str, str]
    client_request_id: str | None = None
    name: str | None = None
    common: Common | None = None
    error: str | None = None
    unread: Unread | None = None


class RootSpan(Protocol):
    """The root span of one request's trace, and the trace's own data (tags, metadata)."""

    trace_id: str
    """MLflow's trace id, ``tr-`` and 32 hexadecimal digits."""

    def attach(self) -> Entered:
        """Make this the current span, until `current.leave`."""

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        """Set span attributes; values are anything that JSON can hold."""

    def add(self, said: Description) -> None:
        """Add to what it holds."""

    def fail(self, error: BaseException) -> None:
        """Record an exception as OpenTelemetry does, and the error status with it; also while the trace is held."""

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        """Add tags and metadata to the trace, and set its client request id where the server can store it."""

    def metadata(self, key: str) -> str | None:
        """The trace's metadata value for ``key``, as it stands now."""

    @property
    def failed(self) -> bool:
        """Whether the span's status is an error."""

    def seconds(self, end_time_ns: int | None = None) -> float:
        """How long the span has taken, until now or a time (nanoseconds since the epoch)."""

    def discard(self) -> bool:
        """Forget the trace, so that nothing of it will be exported.

        Returns:
            Whether that was done; a trace that another request of this process has begun is left alone.
        """

    def end(self, end_time_ns: int | None = None, held: int = 0) -> None:
        """End the span; its status is OK unless an error was set.

        Args:
            end_time_ns: When, in nanoseconds since the epoch; None for now.
            held: Bytes that are kept until the span is described, where that has not happened yet.
        """

    def hold(self) -> bool:
        """Let the trace take spans, tags and an error also after this span has ended, until it is released.

        Returns:
            Whether that is so; MLflow's own exporter is not to be held.
        """

    def release(self) -> None:
        """Nothing more will come; what came after the trace was read is delivered."""


def update(
    info: Any,
    tags: Mapping[str, str] | None,
    metadata: Mapping[str, str] | None,
    client_request_id: str | None,
) -> None:
    """Add to what is known of a trace: MLflow's ``TraceInfo``, or what has its attributes."""
    if tags:
        info.tags.update(tags)
    if metadata:
        info.trace_metadata.update(metadata)
    if client_request_id is not None and len(client_request_id) <= keys.MAX_CLIENT_REQUEST_ID:
        info.client_request_id = client_request_id


Describe = Callable[[Mapping[str, str]], Description | None]
"""Says all that is known of a request by now, given the metadata that its trace has already; never raises."""


class TracesInside(Protocol):
    """What each trace holds from its start that the app opens on a connection without a trace of its own."""

    def attach(self) -> Entered:
        """Give it to the traces opened from here, until `leave`."""

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        """Add to what the traces hold that begin from now on; see `RootSpan.update_trace`."""
