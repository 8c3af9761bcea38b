"""Hands each trace to delivery when its root has ended, and again when a span has ended long after it."""

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
"""Traces, delivered but for spans that are still open, that are kept so that such a span finds its trace."""


class Exporter(SpanExporter):
    """Hands finished traces to delivery.

    A trace stays registered as long as one of its spans is open, so that such a span finds it.

    Args:
        tracking_uri: Where the traces go.
        put: Takes a trace.
        queue: What ``mlflow.flush_trace_async_logging()`` flushes.
    """

    def __init__(self, tracking_uri: str, put: Callable[[PendingTrace], None], queue: object) -> None:
        self._tracking_uri = tracking_uri
        self._put = put
        self._async_queue = queue  # the name that MLflow looks for
        self._late: dict[int, PendingTrace] = {}
        self._manager = InMemoryTraceManager.get_instance()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take ended spans, but for requests' roots."""
        for span in spans:
            otel_id = span.context.trace_id
            is_own = is_local_root(span)
            if is_own or otel_id in self._late:
                self._ended(otel_id, is_own=is_own)
        return SpanExportResult.SUCCESS

    def root_ended(self, root: Root) -> None:
        """Take the trace of a request."""
        self._ended(root.record.ids.trace_id, root)

    def released(self, root: Root) -> None:
        """Nothing more comes of a request; what came after its trace was read is delivered."""
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
        """Take a trace of which a span has ended.

        Args:
            otel_id: OpenTelemetry's trace id.
            root: The request whose root it was, if it was one's.
            is_own: Whether it was the root of a trace that the app has opened itself.
        """
        with self._manager._lock:
            new = self._taken(otel_id, root, is_own=is_own)
        if new:
            self._put(new)

    def _taken(self, otel_id: int, root: Root | None, *, is_own: bool = False) -> PendingTrace | None:
        """See `_ended`; to be called under the lock.

        Returns:
            What is to be put; None if the trace waits already, or is not known.
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
        """Remember a trace as long as one of its spans is open; of those whose spans never end, only so many."""
        if not (pending.has_open_spans or (guests and otel_id in guests)):
            self._late.pop(otel_id, None)
            pending.forget()
            return
        self._late[otel_id] = pending
        if len(self._late) > MAX_LATE:
            oldest, first = next(iter(self._late.items()))
            del self._late[oldest]
            if first.root and first.root.is_held:  # which ends, with its request
                self._late[oldest] = first
            else:
                first.forget()


def _stays(first: Root | None, root: Root | None, *, is_own: bool) -> bool:
    """Whether a trace stays that of the request that has ended first.

    Args:
        first: The request.
        root: The request that has ended now, if one has.
        is_own: Whether the root of a trace that is no request's has ended now.
    """
    if is_own:
        return first is not None and first.is_leading
    return root is None or root.is_shared
