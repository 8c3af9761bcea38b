"""A trace whose root has ended, as it waits for delivery; it is encoded only when its turn comes."""

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
        tracking_uri: Where it goes.
        root: The request's root, if it is one's.
        trace: MLflow's trace, if it is none's.
        earlier: What was delivered of it before.

    Attributes:
        tracking_uri: Where it goes.
        root: The request's root, if it is one's.
        trace_id: MLflow's trace id.
        experiment_id: None for the one that the environment names, not known yet when the trace began.
        since: When it was put into the queue, by the monotonic clock; told as it is taken out.
        size: Bytes, about: what it counts for in the queue.
        supplement: Whether it was delivered before, and a span has ended since.
        captured_by: What took it instead of delivery; also for its supplements.
        copy_to: Takes what it is encoded as, too.
        is_read: Whether it was encoded.
        assessed: How far a server knows its assessments; None while it has none.
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
        """Take it for that of another root, of which this was only a part."""
        self.root, self._trace = root, trace

    @property
    def spans(self) -> list[LiveSpan]:
        """Its spans, without the request's root."""
        return self.root.spans if self.root else list(self._trace.span_dict.values())

    @property
    def has_open_spans(self) -> bool:
        """Whether more may come."""
        return (self.root is not None and self.root.is_held) or any(map(_is_open, self.spans))

    def forget(self) -> None:
        """Let nobody find it any more; to be called under MLflow's lock."""
        if self.root:
            self.root.forget()
        else:
            registry.unregister(self.trace_id, int(self.trace_id.removeprefix("tr-"), 16))

    def is_complete(self) -> bool:
        """Whether all of its spans have ended, and nothing more will come."""
        return not self.has_open_spans

    def forget_contents(self) -> None:
        """Do without the inputs and outputs that are still to be read: there is no time or no room for them."""
        if self.root:
            self.root.record.forget_contents()

    def content(self, experiment_id: str) -> Encoding:
        """Encode the spans that have ended by now, and its info, with that experiment."""
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
        """Read it as what MLflow's own search would give."""
        self._begin_to_read()
        if self.root:
            return encode.request_entity(self.root, self._ended(), experiment_id)
        return encode.trace_entity(self._trace, self._ended(), experiment_id)

    def _begin_to_read(self) -> None:
        if self.root:  # first: what comes once this is read comes as a supplement, which is a change
            self.root.record.is_changed = False
        self.is_read = True

    def _let_go(self, root: Root) -> None:
        """Hold the bodies of a request no longer, unless it is read once more."""
        with root.source.lock:
            if root.is_forgotten and not root.record.is_changed:
                root.record.drop_bodies()

    def _ended(self) -> list[LiveSpan]:
        return [span for span in self.spans if span.end_time_ns is not None]


def _experiment_of(trace: Any) -> str | None:
    """A trace's experiment; one that a caller has begun has none here, and its spans go where others go."""
    located: str | None = trace.info.experiment_id if trace.info.trace_location else active_experiment_id()
    return located


def _size(span: LiveSpan) -> int:
    attached = sum(len(each.content_bytes) for each in span._attachments.values())
    return _SPAN + attached + span_attributes.size_of_attributes(span._span)


_SPAN = 3000
"""Bytes, about, of MLflow's and OpenTelemetry's objects for a span, without its attributes."""


def _is_open(span: LiveSpan) -> bool:
    root = root_of(span)
    return root.is_held or root.record.end_time is None if root else span.end_time_ns is None
