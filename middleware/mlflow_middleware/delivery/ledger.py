"""The accounting of ended traces: each is counted once, and its room in the queue is released."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.stats import Stats

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge import PendingTrace

logger = logging.getLogger("mlflow_middleware.delivery")


class Ledger:
    """Counter of traces at their end. A supplement also releases its room, but was counted with its trace.

    Args:
        queue: The queue that limits the size of pending traces.
        stats: The counts.
    """

    def __init__(self, queue: TraceQueue, stats: Stats) -> None:
        self.queue = queue
        self._stats = stats

    def delivered(self, trace: EncodedTrace) -> None:
        """Record that the server has a trace."""
        if self._end(trace):
            self._stats.delivered += 1
            self._stats.last_delivered_at = time.time()

    def spooled(self, trace: EncodedTrace) -> None:
        """Record that the spool has a trace."""
        if self._end(trace):
            self._stats.spooled += 1

    def refused(self, trace: EncodedTrace, error: Exception) -> None:
        """Record that the server will never accept a trace."""
        logger.warning("trace dropped, refused by the server: %s: %s", trace.trace_id, error)
        if self._end(trace):
            self._stats.drop("refused by the server")

    def settle(self, pending: Iterable[EncodedTrace], *, last: bool) -> None:
        """Count the traces that no spool has taken when the time of an exit or a shutdown is over.

        Args:
            pending: The pending traces.
            last: Whether the process ends, so that the traces are lost; otherwise they stay pending.
        """
        for trace in pending:
            if trace.has_spans:
                self.delivered(trace)  # it is readable, and can be found by its tags
            elif last and self._end(trace):
                self._stats.drop("not delivered before the exit")

    def not_encodable(self, trace: PendingTrace, error: Exception) -> None:
        """Record that a trace cannot be encoded, and is lost."""
        logger.warning("trace dropped, not encodable: %s", trace.trace_id, exc_info=error)
        if not trace.supplement:
            self._stats.drop("not encodable")
        self.queue.end(trace.size)

    def resize(self, trace: EncodedTrace) -> None:
        """Update the size of a trace that has been encoded or compressed."""
        if trace.source is None and not trace.ended:
            self.queue.resize(trace.size - trace.held)
            trace.held = trace.size

    def _end(self, trace: EncodedTrace) -> bool:
        """Remove a trace from the queue or from its spool file, once.

        Returns:
            Whether the trace is to be counted.
        """
        if trace.ended:
            return False
        trace.ended = True
        if trace.source:
            if trace.source.is_own:
                self._stats.spooled -= 1
            trace.source.done(trace)
        else:
            self.queue.end(trace.held)
        return not trace.supplement
