"""The transfer of traces from a destination to the spool, and back when the server is reachable again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby

from mlflow_middleware.delivery.disk import at_once
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.fitting import fitting
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.queue import MAX_BATCH
from mlflow_middleware.delivery.spool import Spool, SpoolProblem
from mlflow_middleware.delivery.spool_format import encoded

SPOOL_LOOK = 5.0
"""Seconds between two checks for files of other processes in the spool, and between two attempts to write there."""

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Approximate maximum size of one file, in bytes; all traces of a file are in memory while they are sent."""

LOAD_LOOK = 0.05
"""Seconds until the first check for a file that is being loaded."""

MAX_FROM_SPOOL = 1024
"""Number of traces in memory from which on no more files are loaded."""

LOG_INTERVAL = 30.0
"""Seconds between two log lines about the same problem."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Spooling:
    """Writer of a destination's pending traces to the spool, and loader of spooled traces.

    Args:
        spool: The spool.
        ledger: Counts the spooled traces.
        run: Runs slow operations, since the disk may stall.
        lock: Held by the callers, and by this class when it changes the state in another thread.

    Attributes:
        look_at: Time of the next check for files.
    """

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        run: Callable[[Callable[[], object]], None] = at_once,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._run = run
        self._lock = lock or nullcontext()
        self.look_at = 0.0
        self._is_loading = False
        self._load_pause = LOAD_LOOK
        self._loaded: list[EncodedTrace] = []
        self._writing: set[EncodedTrace] = set()
        self._write_at = float("-inf")
        self._logged_at = float("-inf")

    def look_later(self, now: float) -> None:
        """Load no files for a while."""
        self.look_at = max(self.look_at, now + SPOOL_LOOK)

    def load(self, pending: int, now: float) -> list[EncodedTrace]:
        """Load the oldest file if it is time and there is room for its traces; a later call may return them.

        Args:
            pending: Number of traces in memory.
            now: The time.
        """
        if not self._loaded and (now < self.look_at or pending >= MAX_FROM_SPOOL):
            return []
        if not (self._loaded or self._is_loading):
            self._is_loading, self._load_pause = True, LOAD_LOOK
            self._run(partial(self._load, now))
        if self._is_loading:
            self.look_at = now + self._load_pause
            self._load_pause = min(SPOOL_LOOK, 2 * self._load_pause)
        loaded, self._loaded = self._loaded, []
        return loaded

    def _load(self, now: float) -> None:
        file = None
        try:
            file = self._spool.claim()
        finally:
            with self._lock:
                self._is_loading = False
                self.look_at = 0.0 if file else now + SPOOL_LOOK
                if file:
                    file.run = self._run
                    self._loaded = file.traces

    def save(
        self, traces: Iterable[EncodedTrace], now: float, *, suspects_stay: bool, last: bool
    ) -> list[EncodedTrace]:
        """Write traces to the spool; release those that were loaded from it.

        Args:
            traces: The pending traces.
            now: The current time.
            suspects_stay: Whether the server responds with failures, perhaps because of one of these traces: then the
                suspects stay in memory, where their failures are counted, and so do the loaded traces.
            last: Whether the process ends, so that it is tried even soon after a failure.

        Returns:
            The traces that stay in memory, some only until they are written.
        """
        pending = [trace for trace in traces if not trace.ended]
        loaded = [trace for trace in pending if trace.source]
        own = [trace for trace in pending if not trace.source]
        suspects = [trace for trace in own if trace.failures and suspects_stay]
        if not suspects_stay:
            for file in {id(trace.source): trace.source for trace in loaded if trace.source}.values():
                file.let_go()
            loaded = []
        own = [trace for trace in own if not (trace.failures and suspects_stay)]
        if last or now >= self._write_at:
            self._write([trace for trace in own if trace not in self._writing], now)
        return [trace for trace in (*loaded, *suspects, *own) if not trace.ended]

    def _write(self, traces: Iterable[EncodedTrace], now: float) -> None:
        """Schedule the writing of traces, file by file."""
        for _, group in groupby(sorted(traces, key=_experiment_of), key=_experiment_of):
            batch = list(group)
            while batch:
                part = fitting(batch, MAX_BATCH, MAX_FILE_BYTES, lambda trace: trace.raw)
                batch = batch[len(part) :]
                self._writing.update(part)
                self._run(partial(self._write_part, part, now))

    def _write_part(self, part: Sequence[EncodedTrace], now: float) -> None:
        with self._lock:
            left = [trace for trace in part if not trace.ended]
            data = encoded(left)
        problem = None
        try:
            name = self._spool.write_encoded(data, part[0].experiment_id) if left else ""
        except SpoolProblem as error:
            problem = error
        with self._lock:
            self._writing.difference_update(part)
            if problem:
                self._fail(problem, now)
                return
            for trace in left:
                if trace.ended:  # the server has accepted it meanwhile
                    self._spool.finished(name, trace)
                else:
                    self._ledger.spooled(trace)

    def _fail(self, problem: SpoolProblem, now: float) -> None:
        self._write_at = now + SPOOL_LOOK
        if now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            logger.warning("traces wait in memory instead of the spool: %s", problem)


def _experiment_of(trace: EncodedTrace) -> str:
    return trace.experiment_id or ""
