"""How a trace ends: counted once, and its room in the queue given back."""

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
    """Counts each trace at its end. A supplement gives its room back too; it was counted with its trace.

    Args:
        queue: Where the traces take room.
        stats: The counts.
    """

    def __init__(self, queue: TraceQueue, stats: Stats) -> None:
        self.queue = queue
        self._stats = stats

    def delivered(self, trace: EncodedTrace) -> None:
        """The server has it."""
        if self._end(trace):
            self._stats.delivered += 1
            self._stats.last_delivered_at = time.time()

    def spooled(self, trace: EncodedTrace) -> None:
        """The spool has it."""
        if self._end(trace):
            self._stats.spooled += 1

    def refused(self, trace: EncodedTrace, error: Exception) -> None:
        """The server will never take it."""
        logger.warning("trace dropped, refused by the server: %s: %s", trace.trace_id, error)
        if self._end(trace):
            self._stats.drop("refused by the server")

    def settle(self, pending: Iterable[EncodedTrace], *, last: bool) -> None:
        """Count what no spool has taken when the time of an exit or a shutdown is over.

        Args:
            pending: What is pending.
            last: Whether the process ends, and what is left with it; otherwise that waits.
        """
        for trace in pending:
            if trace.has_spans:
                self.delivered(trace)  # it can be read, and found by its tags
            elif last and self._end(trace):
                self._stats.drop("not delivered before the exit")

    def not_encodable(self, trace: PendingTrace, error: Exception) -> None:
        """It cannot be sent at all."""
        logger.warning("trace dropped, not encodable: %s", trace.trace_id, exc_info=error)
        if not trace.supplement:
            self._stats.drop("not encodable")
        self.queue.end(trace.size)

    def resize(self, trace: EncodedTrace) -> None:
        """Count the bytes that a trace takes by now, encoded or packed."""
        if trace.source is None and not trace.ended:
            self.queue.resize(trace.size - trace.held)
            trace.held = trace.size

    def _end(self, trace: EncodedTrace) -> bool:
        """Take a trace out of the queue or its spool file, once.

        Returns:
            Whether it is to be counted.
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
