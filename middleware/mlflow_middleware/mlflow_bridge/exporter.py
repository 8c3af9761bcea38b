"""The exporter, which passes each trace to delivery when its root ends, and again when a span ends later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlflow.tracing.trace_manager import InMemoryTraceManager
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mlflow_middleware.mlflow_bridge.pending import PendingTrace
from mlflow_middleware.mlflow_bridge.registry import guests
from mlflow_middleware.mlflow_bridge.root import Root
from mlflow_middleware.mlflow_bridge.span_attributes import is_local_root

MAX_LATE = 1000
"""Maximum number of delivered traces with open spans that are kept, so that such spans find their trace."""


class Exporter(SpanExporter):
    """Exporter of finished traces to delivery.

    A trace stays registered while one of its spans is open, so that the span finds it.

    Args:
        tracking_uri: The destination of the traces.
        put: Takes a trace.
        queue: The queue that ``mlflow.flush_trace_async_logging()`` flushes.
    """

    def __init__(self, tracking_uri: str, put: Callable[[PendingTrace], None], queue: object) -> None:
        self._tracking_uri = tracking_uri
        self._put = put
        self._async_queue = queue  # the name that MLflow looks for
        self._late: dict[int, PendingTrace] = {}
        self._manager = InMemoryTraceManager.get_instance()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Accept ended spans, except the roots of requests."""
        for span in spans:
            otel_id = span.context.trace_id
            is_own = is_local_root(span)
            if is_own or otel_id in self._late:
                self._ended(otel_id, is_own=is_own)
        return SpanExportResult.SUCCESS

    def root_ended(self, root: Root) -> None:
        """Accept the trace of a request."""
        self._ended(root.record.ids.trace_id, root)

    def released(self, root: Root) -> None:
        """Record that a request is complete; deliver changes since its trace was encoded."""
        otel_id = root.record.ids.trace_id
        with self._manager._lock:
            pending, new = self._late.get(otel_id), None
            if pending is None:
                return
            if pending.is_read and (root.record.is_changed or root.objects is not None):
                new = self._taken(otel_id, root)
            else:
                self._keep_or_forget(otel_id, pending)
        if new:
            self._put(new)

    def _ended(self, otel_id: int, root: Root | None = None, *, is_own: bool = False) -> None:
        """Process the end of a span.

        Args:
            otel_id: OpenTelemetry's trace id.
            root: The request whose root has ended; None if the span is not a request's root.
            is_own: Whether the span is the root of a trace that the app has opened itself.
        """
        with self._manager._lock:
            new = self._taken(otel_id, root, is_own=is_own)
        if new:
            self._put(new)

    def _taken(self, otel_id: int, root: Root | None, *, is_own: bool = False) -> PendingTrace | None:
        """Return the trace to deliver: see `_ended`. Call this under the lock.

        Returns:
            The trace to put; None if it is already queued, or unknown.
        """
        earlier = self._late.get(otel_id)
        if earlier is not None and _stays(earlier.root, root, is_own=is_own):
            root = earlier.root
        trace = None if root else self._manager._traces.get(self._manager._otel_id_to_mlflow_trace_id.get(otel_id))
        if not (root or trace):
            return None
        if earlier is not None and not earlier.is_read:
            earlier.belongs_to(root, trace)
            self._keep_or_forget(otel_id, earlier)
            return None
        pending = PendingTrace(self._tracking_uri, root, trace, earlier)
        self._keep_or_forget(otel_id, pending)
        return pending

    def _keep_or_forget(self, otel_id: int, pending: PendingTrace) -> None:
        """Keep a trace while one of its spans is open; limit the number of traces whose spans never end."""
        if not (pending.has_open_spans or (guests and otel_id in guests)):
            self._late.pop(otel_id, None)
            pending.forget()
            return
        self._late[otel_id] = pending
        if len(self._late) > MAX_LATE:
            oldest, first = next(iter(self._late.items()))
            del self._late[oldest]
            if first.root and first.root.is_held:  # it will end with its request
                self._late[oldest] = first
            else:
                first.forget()


def _stays(first: Root | None, root: Root | None, *, is_own: bool) -> bool:
    """Return whether a trace stays that of the request that has ended first.

    Args:
        first: The request that has ended first.
        root: The request that has ended now, if any.
        is_own: Whether the root of a trace that is not a request's has ended now.
    """
    if is_own:
        return first is not None and first.is_leading
    return root is None or root.is_shared
