"""Between a destination and the spool: what cannot be sent goes there, and comes back later."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import groupby

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.queue import MAX_BATCH
from mlflow_middleware.delivery.spool import Spool, SpoolProblem

SPOOL_LOOK = 5.0
"""Seconds between two looks for files of other processes in the spool, and between two attempts to write there."""

MAX_FROM_SPOOL = 1024
"""Traces that may wait in memory when another file is loaded from the spool."""

LOG_INTERVAL = 30.0
"""Seconds between two log lines about the same trouble."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Spooling:
    """Writes a destination's pending traces to the spool, and loads what waits there.

    Args:
        spool: The directory.
        ledger: Counts what is spooled.

    Attributes:
        look_at: When to look for files next.
    """

    def __init__(self, spool: Spool, ledger: Ledger) -> None:
        self._spool = spool
        self._ledger = ledger
        self.look_at = 0.0
        self._write_at = float("-inf")
        self._logged_at = float("-inf")

    def load(self, pending: int, now: float) -> list[EncodedTrace]:
        """Load the oldest file, if it is time and there is room for its traces.

        Args:
            pending: Traces in memory.
            now: The time.
        """
        if now < self.look_at or pending >= MAX_FROM_SPOOL:
            return []
        file = self._spool.claim()
        if file is None:
            self.look_at = now + SPOOL_LOOK
            return []
        return file.traces

    def save(
        self, traces: Iterable[EncodedTrace], now: float, *, suspects_stay: bool, last: bool
    ) -> list[EncodedTrace]:
        """Write traces to the spool; those that came from there go back by being let go.

        Args:
            traces: What is pending.
            now: The time.
            suspects_stay: The server answers, but fails, perhaps over one of these traces: those under suspicion
                stay in memory, where it is counted how often each has failed, and so do those from the spool.
            last: Whether the process ends; then it is tried whatever happened before.

        Returns:
            Those that stay in memory.
        """
        pending = [trace for trace in traces if not trace.ended]
        loaded = [trace for trace in pending if trace.source]
        own = [trace for trace in pending if not trace.source]
        suspects = [trace for trace in own if trace.failures and suspects_stay]
        if not suspects_stay:
            for file in {id(trace.source): trace.source for trace in loaded if trace.source}.values():
                file.release()
            loaded = []
        own = [trace for trace in own if not (trace.failures and suspects_stay)]
        if last or now >= self._write_at:
            own = self._write(own, now)
        return [*loaded, *suspects, *own]

    def _write(self, traces: Iterable[EncodedTrace], now: float) -> list[EncodedTrace]:
        """Write traces, file by file; returns those that the spool did not take."""
        kept: list[EncodedTrace] = []
        for _, group in groupby(sorted(traces, key=_experiment_of), key=_experiment_of):
            batch = list(group)
            while batch:
                part, batch = batch[:MAX_BATCH], batch[MAX_BATCH:]
                try:
                    self._spool.write(part)
                except SpoolProblem as problem:
                    self._fail(problem, now)
                    kept += part
                    continue
                for trace in part:
                    self._ledger.spooled(trace)
        return kept

    def _fail(self, problem: SpoolProblem, now: float) -> None:
        self._write_at = now + SPOOL_LOOK
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.warning("%s; traces wait in memory instead", problem)


def _experiment_of(trace: EncodedTrace) -> str:
    return trace.experiment_id or ""
