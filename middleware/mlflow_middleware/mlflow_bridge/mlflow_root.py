"""A request's root span as MLflow's and OpenTelemetry's objects."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import LiveSpan
from mlflow.entities.trace_state import TraceState
from mlflow.tracing.config import get_config
from mlflow.tracing.trace_manager import InMemoryTraceManager
from mlflow.tracing.utils.processor import apply_span_processors
from mlflow.tracing.utils.truncation import _get_max_length
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import Status, StatusCode

from mlflow_middleware.mlflow_bridge import context, keys, span_attributes
from mlflow_middleware.mlflow_bridge.root_span import Contents, Description, Entered, Unread, Written, update

_OK = Status(StatusCode.OK)

DEFAULT_LOG_LEVEL: dict[str, object] = {keys.LOG_LEVEL: 10} if hasattr(LiveSpan, "set_log_level") else {}
"""What MLflow gives to spans of type CHAIN: DEBUG, where it knows levels (3.13; tracing/utils/default_log_level.py)."""

_HELD = "_mlflow_middleware_held"
"""A root of ours has this attribute while the request goes on after its answer."""

EXPORTER = "_mlflow_middleware_exporter"
"""A root of ours has its exporter here."""

UNREAD = "_mlflow_middleware_unread"
"""A root of ours has this attribute when our own delivery will read it."""


class MlflowRoot:
    """A `RootSpan` that is MLflow's and OpenTelemetry's objects.

    Attributes:
        otel: The span.
        trace: MLflow's trace in flight.
    """

    __slots__ = ("_is_ours", "_is_shared", "_span", "otel", "trace", "trace_id")

    def __init__(self, span: LiveSpan, trace: Any, is_shared: bool) -> None:
        self._is_ours = UNREAD in vars(span)
        self._is_shared = is_shared
        self._span = span
        self.trace = trace
        self.otel: Span = span._span
        self.trace_id: str = trace.info.trace_id

    def attach(self) -> Entered:
        return context.attach(self.otel)

    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        span_attributes.set_attributes(self.otel, attributes)

    def add(self, said: Description) -> None:
        if common := said.common:
            self.set_attributes(common.attributes)
            self.update_trace(common.tags)
        name = said.name or (common and common.name)
        if name and name != self.otel.name:  # else the trace may have it from another request's root
            self.otel.update_name(name)
            self.trace.info.tags[keys.NAME] = name
        self.set_attributes(said.attributes)
        self.update_trace(said.tags, said.metadata, said.client_request_id)
        if said.error is not None:
            self.set_error(said.error)
        if said.unread is not None:
            vars(self._span)[UNREAD] = said.unread

    def forget_contents(self) -> None:
        """Do without what is still to be read."""
        forget_contents(self.trace)

    def fail(self, error: BaseException) -> None:
        if self.otel.end_time and _HELD not in vars(self._span):
            return
        with _reopened(self.otel) as had_ended:
            self.set_attributes({"error.type": type(error).__qualname__})
            self.set_error(type(error).__qualname__)
            known = isinstance(error, Exception)  # MLflow takes no other BaseException
            self._span.record_exception(error if known else f"{type(error).__name__}: {error}")
        if had_ended:  # its status is OK by now, which is final for the SDK
            self.otel._status = Status(StatusCode.ERROR, type(error).__qualname__)
            self.trace.info.state = TraceState.ERROR

    def set_error(self, description: str) -> None:
        """Set the error status, unless an exception already did."""
        if self.otel.status.status_code is not StatusCode.ERROR:
            self.otel.set_status(Status(StatusCode.ERROR, description))

    def update_trace(
        self,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        client_request_id: str | None = None,
    ) -> None:
        update(self.trace.info, tags, metadata, client_request_id)

    def metadata(self, key: str) -> str | None:
        value: str | None = self.trace.info.trace_metadata.get(key)
        return value

    @property
    def failed(self) -> bool:
        return self.otel.status.status_code is StatusCode.ERROR

    def seconds(self, end_time_ns: int | None = None) -> float:
        return ((end_time_ns or time.time_ns()) - (self.otel.start_time or 0)) / 1e9

    def discard(self) -> bool:
        if self._is_shared:
            return False
        discard(self.trace_id, self.otel.get_span_context().trace_id)
        return True

    def end(self, end_time_ns: int | None = None, held: int = 0) -> None:
        # As ``LiveSpan.end`` does it, without what concerns other types of spans: the cost of a model's call, and hints
        # to agents, whose imports fail each time in the slim package (60 us on a slow core).
        self._complete()
        processors = get_config().span_processors
        if processors or not self._is_ours:
            read_contents(self.trace, self._span)
        if processors:
            apply_span_processors(self._span)
        self.otel.end(end_time=end_time_ns)

    def end_quietly(self, end_time_ns: int) -> None:
        """End the span of which nobody needs to be told."""
        self._complete()
        span: Any = self.otel
        span._end_time, span._attributes._immutable = end_time_ns, True

    def _complete(self) -> None:
        if self.otel.status.status_code is not StatusCode.ERROR:
            self.otel.set_status(_OK)
        if keys.LOG_LEVEL not in span_attributes.attributes_of(self.otel):
            span_attributes.set_attributes(self.otel, DEFAULT_LOG_LEVEL)

    def hold(self) -> bool:
        if self._is_ours:
            vars(self._span)[_HELD] = True
        return self._is_ours

    def release(self) -> None:
        exporter = vars(self._span).get(EXPORTER)
        if vars(self._span).pop(_HELD, False) and exporter:
            exporter.export((self.otel,))


@contextlib.contextmanager
def _reopened(span: Any) -> Iterator[bool]:
    """Have the SDK take more for a span, also when it has ended; says whether it has."""
    attributes, ended = span._attributes, span._end_time
    if ended:
        span._end_time, attributes._immutable = None, False
    try:
        yield bool(ended)
    finally:
        if ended:
            span._end_time, attributes._immutable = ended, True


def adopt(span: LiveSpan, exporter: object) -> None:
    """Make a root one of ours: our own delivery reads it."""
    vars(span).update({UNREAD: None, EXPORTER: exporter})


def is_open(span: LiveSpan) -> bool:
    """Whether more may come for a span."""
    return span.end_time_ns is None or _HELD in vars(span)


def unread_of(span: LiveSpan) -> int:
    """Bytes that wait to be read for a span."""
    unread: Unread | None = vars(span).get(UNREAD)
    return unread.size if unread else 0


def forget_contents(trace: Any) -> None:
    """Do without what is still to be read for a trace."""
    for span in list(trace.span_dict.values()):
        if vars(span).get(UNREAD):
            vars(span)[UNREAD] = None


def read_contents(trace: Any, span: LiveSpan) -> list[Written]:
    """Give a root the inputs and outputs that were to be read later; what the app has set itself stays.

    Returns:
        What it was given.
    """
    unread: Unread | None = vars(span).get(UNREAD)
    if unread is None:
        return []
    vars(span)[UNREAD] = None
    contents = unread.read()
    return give(trace, span, contents) if contents else []


def give(trace: Any, span: LiveSpan, contents: Contents) -> list[Written]:
    """Give a root what was read; what the app has set itself stays.

    Returns:
        What it was given.
    """
    known, info = span_attributes.attributes_of(span._span), trace.info
    found = ((keys.INPUTS, contents.inputs), (keys.OUTPUTS, contents.outputs))
    new = {key: value for key, value in found if value is not None and key not in known}
    span_attributes.set_texts(span._span, {key: value.text for key, value in new.items()})
    rest = dict(contents.attributes)
    spans = list(trace.span_dict.values())
    if contents.usage and not any(keys.USAGE in span_attributes.attributes_of(each._span) for each in spans):
        rest[keys.USAGE] = contents.usage
    if rest:
        span_attributes.set_attributes(span._span, rest)
    if info.request_preview is None and (inputs := new.get(keys.INPUTS)):
        info.request_preview = preview_of(inputs)
    if info.response_preview is None and (outputs := new.get(keys.OUTPUTS)):
        info.response_preview = preview_of(outputs)
    return list(new.values())


def preview_of(written: Written) -> str:
    """A preview as MLflow shortens its own (mlflow/tracing/utils/truncation.py)."""
    preview = written.preview.replace("\0", "\ufffd")  # PostgreSQL stores no such text
    if len(preview) <= keys.MAX_PREVIEW:  # the smaller of two limits: no look-up, 3 us
        return preview
    longest = _get_max_length()
    return preview if len(preview) <= longest else preview[: longest - 3] + "..."


def discard(trace_id: str, otel_id: int) -> None:
    """Have MLflow forget a trace."""
    manager = InMemoryTraceManager.get_instance()
    with manager._lock:
        manager._traces.pop(trace_id, None)
        manager._otel_id_to_mlflow_trace_id.pop(otel_id, None)
