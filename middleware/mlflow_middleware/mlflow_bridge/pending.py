"""A trace whose root has ended and which waits for delivery; it is encoded only when it is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow.entities import Assessment, LiveSpan, Trace

from mlflow_middleware.mlflow_bridge import assessments, encode, registry, span_attributes
from mlflow_middleware.mlflow_bridge.assessments import Assessed
from mlflow_middleware.mlflow_bridge.encode import Encoding
from mlflow_middleware.mlflow_bridge.materialize import root_of
from mlflow_middleware.mlflow_bridge.root import Root
from mlflow_middleware.mlflow_bridge.tracking_client import active_experiment_id
from mlflow_middleware.mlflow_bridge.uris import is_databricks


class PendingTrace:
    """A trace that waits for delivery: a request's, or one that the app has opened itself.

    Args:
        tracking_uri: The destination.
        root: The request's root; None for a trace of the app.
        trace: MLflow's trace; None for a request's.
        earlier: The part that was delivered before, if any.

    Attributes:
        tracking_uri: The destination.
        root: The request's root; None for a trace of the app.
        trace_id: MLflow's trace id.
        experiment_id: The experiment; None for that of the environment, if it was unknown when the trace began.
        since: When it was queued, by the monotonic clock; set when it is taken out of the queue.
        size: Approximate size for the queue, in bytes.
        supplement: Whether it was delivered before, and a span has ended since.
        captured_by: The capture that takes it and its supplements instead of delivery.
        copy_to: Takes the encoded trace, too.
        is_read: Whether it has been encoded.
        assessed: The progress of sending its assessments; None before the first.
    """

    __slots__ = (
        "_trace",
        "assessed",
        "captured_by",
        "copy_to",
        "experiment_id",
        "is_read",
        "root",
        "since",
        "size",
        "supplement",
        "trace_id",
        "tracking_uri",
    )

    def __init__(self, tracking_uri: str, root: Root | None, trace: Any, earlier: PendingTrace | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.root = root
        self._trace = trace
        self.trace_id: str = root.record.trace_id if root else trace.info.trace_id
        self.experiment_id: str | None = root.record.experiment_id if root else _experiment_of(trace)
        self.supplement = earlier is not None
        self.captured_by: Callable[[PendingTrace], None] | None = earlier.captured_by if earlier else None
        self.assessed: Assessed | None = earlier.assessed if earlier else None
        self.copy_to: Callable[[PendingTrace, Encoding], None] | None = None
        self.is_read = False
        self.since = 0.0
        self.size = root.record.size if root else 1000
        if spans := self.spans:
            self.size += sum(map(_size, spans))
        if root and root.objects:
            self.size += _size(root.objects.live)
        if root and earlier:
            root.record.is_changed = True

    def belongs_to(self, root: Root | None, trace: Any) -> None:
        """Reassign the trace to another root, of whose trace this was only a part."""
        self.root, self._trace = root, trace

    @property
    def spans(self) -> list[LiveSpan]:
        """The spans, except the request's root."""
        return self.root.spans if self.root else list(self._trace.span_dict.values())

    @property
    def has_open_spans(self) -> bool:
        """Whether more may be added."""
        return (self.root is not None and self.root.is_held) or any(map(_is_open, self.spans))

    def forget(self) -> None:
        """Remove it from the registry; call this under MLflow's lock."""
        if self.root:
            self.root.forget()
        else:
            registry.unregister(self.trace_id, int(self.trace_id.removeprefix("tr-"), 16))

    def is_complete(self) -> bool:
        """Return whether all its spans have ended and nothing more will come."""
        return not self.has_open_spans

    def forget_contents(self) -> None:
        """Skip inputs and outputs that are not read yet, for lack of time or memory."""
        if self.root:
            self.root.record.forget_contents()

    def content(self, experiment_id: str) -> Encoding:
        """Encode the ended spans and the info, with the given experiment."""
        self._begin_to_read()
        if self.root:
            encoding = encode.encode_request(self.root, self._ended(), experiment_id, self._unsent)
            self._let_go(self.root)
        else:
            encoding = encode.encode_trace(self._trace, self._ended(), experiment_id, self._unsent)
        if self.copy_to:
            self.copy_to(self, encoding)
        return encoding

    def _unsent(self, given: list[Assessment]) -> list[Assessment]:
        self.assessed = self.assessed or Assessed()
        return assessments.unsent(given, self.assessed, with_ids=not is_databricks(self.tracking_uri))

    def entity(self, experiment_id: str) -> Trace:
        """Return it as MLflow's own search would return it."""
        self._begin_to_read()
        if self.root:
            return encode.request_entity(self.root, self._ended(), experiment_id)
        return encode.trace_entity(self._trace, self._ended(), experiment_id)

    def _begin_to_read(self) -> None:
        if self.root:  # first, since later changes come as a supplement
            self.root.record.is_changed = False
        self.is_read = True

    def _let_go(self, root: Root) -> None:
        """Release the bodies of a request, unless it will be encoded once more."""
        with root.source.lock:
            if root.is_forgotten and not root.record.is_changed:
                root.record.drop_bodies()

    def _ended(self) -> list[LiveSpan]:
        return [span for span in self.spans if span.end_time_ns is not None]


def _experiment_of(trace: Any) -> str | None:
    """Return a trace's experiment; a caller's trace has none here, so its spans go to the usual one."""
    located: str | None = trace.info.experiment_id if trace.info.trace_location else active_experiment_id()
    return located


def _size(span: LiveSpan) -> int:
    attached = sum(len(each.content_bytes) for each in span._attachments.values())
    return _SPAN + attached + span_attributes.size_of_attributes(span._span)


_SPAN = 3000
"""Approximate size of MLflow's and OpenTelemetry's objects for a span without its attributes, in bytes."""


def _is_open(span: LiveSpan) -> bool:
    root = root_of(span)
    return root.is_held or root.record.end_time is None if root else span.end_time_ns is None
