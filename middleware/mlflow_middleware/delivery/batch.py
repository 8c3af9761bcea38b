"""One batch in transit to a server: first the infos, then the spans; a refused batch is halved."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlflow_middleware.delivery.actions import Answer, DeleteInfo, SendInfos, SendSpans
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.fitting import fitting
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.replies import PermanentError, RetryableError, TooLarge
from mlflow_middleware.delivery.sinks import Sink

PATIENCE = 5
"""Number of failures of one trace, while others succeed, after which it counts as refused."""

logger = logging.getLogger("mlflow_middleware.delivery")


@dataclass(slots=True)
class Passed:
    """The requests that a server has accepted so far."""

    infos: int = 0
    spans: int = 0
    too_large: int = sys.maxsize  # bytes of spans in the smallest request that it refused for its size
    is_cut_logged: bool = False


class Batch:
    """Pending traces of one experiment, their progress, and the handling of each result.

    Infos first halves the server's work: it does not have to create the trace from its spans and merge the info later.
    Before a deadline, the spans of all pending traces are sent first: a trace without its info is readable, a trace
    without its spans is not.

    Args:
        experiment_id: The experiment's id.
        traces: The traces; they also stay pending in their destination.
        sink: The sink of the server.
        ledger: Counts the result of each trace.
        passed: The requests that the server has accepted, including those of earlier batches.
        spans_only: Whether to leave the infos to a later batch.

    Attributes:
        problem: The reason to send the batch again; None if there is none.
        next_size: Number of traces to send at a time after that problem.
        suspects: Traces that the server failed on when they were sent alone.
    """

    def __init__(
        self,
        experiment_id: str,
        traces: Sequence[EncodedTrace],
        sink: Sink,
        ledger: Ledger,
        passed: Passed,
        *,
        spans_only: bool = False,
    ) -> None:
        self.traces = traces
        self.spans_only = spans_only
        self.problem: RetryableError | None = None
        self.next_size = 1
        self.suspects: list[EncodedTrace] = []
        self._experiment_id = experiment_id
        self._sink = sink
        self._ledger = ledger
        self._passed = passed
        self._groups = deque([traces] if sink.sends_spans_apart else [])
        self._refused: tuple[EncodedTrace, PermanentError] | None = None
        if not sink.sends_spans_apart:
            self._refuse_additions()

    def next(self) -> SendInfos | SendSpans | DeleteInfo | None:
        """Return the next action; None when the batch is complete. Traces that have ended meanwhile are skipped."""
        if self._refused:
            return DeleteInfo(self._experiment_id, *self._refused)
        infos = [trace for trace in self.traces if not (trace.has_info or trace.ended)]
        if infos and not self.spans_only:
            return SendInfos(self._experiment_id, infos)
        while self._groups:
            if group := [trace for trace in self._groups[0] if not (trace.has_spans or trace.ended)]:
                return SendSpans(self._experiment_id, group)
            self._groups.popleft()
        return None

    def answered(self, action: SendInfos | SendSpans | DeleteInfo, answer: Answer) -> None:
        """Process a result; `SendInfos` has one for each trace, in order."""
        if isinstance(action, SendInfos):
            self._info_answered(action.traces[action.answered], answer)
            action.answered += 1
        elif isinstance(action, SendSpans):
            self._spans_answered(action.traces, answer)
        else:
            self._refused = None
            self._ledger.refused(action.trace, action.error)

    def _info_answered(self, trace: EncodedTrace, answer: Answer) -> None:
        if isinstance(answer, PermanentError):
            self._info_refused(trace, answer)
        elif isinstance(answer, RetryableError):
            self.problem = self.problem or answer
            if answer.ill:
                self._suspect(trace, answer, self._passed.infos)
        else:
            trace.info_is_stored()
            trace.failures = 0
            self._passed.infos += 1
            if trace.has_spans or not self._sink.sends_spans_apart:
                self._ledger.delivered(trace)

    def _info_refused(self, trace: EncodedTrace, error: PermanentError) -> None:
        if isinstance(error, TooLarge) and trace.cut_info():
            self._ledger.resize(trace)
            self._warn_of_cut(trace, error)
        elif trace.has_spans:
            logger.warning(
                "trace stored without some of its metadata and tags, which the server refused: %s: %s",
                trace.trace_id,
                error,
            )
            self._ledger.delivered(trace)
        else:
            self._ledger.refused(trace, error)

    def _spans_answered(self, traces: Sequence[EncodedTrace], answer: Answer) -> None:
        if isinstance(answer, PermanentError):
            self._spans_refused(traces, answer)
        elif isinstance(answer, RetryableError):
            self.problem = answer
            self.next_size = max(1, len(traces) // 2)
            if answer.ill and len(traces) == 1:  # otherwise smaller batches will show which trace it fails on
                self._suspect(traces[0], answer, self._passed.spans)
        elif self._sink.sends_spans_apart:
            self._passed.spans += 1
            for trace in traces:
                trace.has_spans = True
                if trace.has_info:
                    self._ledger.delivered(trace)
        else:  # the server has turned out not to take spans separately
            self._groups.clear()
            self._refuse_additions()
            for trace in self.traces:
                trace.has_info = False

    def _refuse_additions(self) -> None:
        for trace in self.traces:
            if trace.is_addition and not trace.ended:
                self._ledger.refused(trace, PermanentError("this server accepts the spans of a trace only once"))

    def _spans_refused(self, traces: Sequence[EncodedTrace], error: PermanentError) -> None:
        """Halve the batch until the refused trace stands alone."""
        if isinstance(error, TooLarge):
            size = sum(len(trace.otlp) for trace in traces)
            self._passed.too_large = min(size, self._passed.too_large)
        if len(traces) > 1:
            half = len(traces) // 2
            self._groups[0] = traces[half:]
            self._groups.appendleft(traces[:half])
        elif isinstance(error, TooLarge) and traces[0].cut():
            self._ledger.resize(traces[0])
            self._warn_of_cut(traces[0], error)
        elif traces[0].supplement or traces[0].source or not traces[0].has_info:  # the info may have been stored before
            self._ledger.refused(traces[0], error)
        else:
            self._refused = traces[0], error

    def _warn_of_cut(self, trace: EncodedTrace, error: TooLarge) -> None:
        if not self._passed.is_cut_logged:
            self._passed.is_cut_logged = True
            logger.warning(
                "trace too large for the server or a proxy in front of it, sent without its largest inputs, outputs or "
                "tags, as are others like it; raise the limit there, or lower max_body_bytes: %s: %s",
                trace.trace_id,
                error,
            )

    def _suspect(self, trace: EncodedTrace, problem: RetryableError, passed: int) -> None:
        """Record that the server failed on this trace alone: it is sent last from now on, and finally refused."""
        if not trace.failures:
            trace.passed_at_first_failure = passed
        trace.failures += 1
        if trace.failures >= PATIENCE and passed > trace.passed_at_first_failure:
            self._ledger.refused(trace, problem)
        else:
            self.suspects.append(trace)


def next_of(pending: Iterable[EncodedTrace], count: int, max_bytes: int, *, without_spans: bool) -> list[EncodedTrace]:
    """Return the oldest pending traces of one experiment that fit into one batch.

    Args:
        pending: The pending traces, at least one of which is to be sent.
        count: Maximum number of traces.
        max_bytes: Maximum size of all of them, in bytes.
        without_spans: Whether to skip traces whose spans the server has.
    """
    left = [trace for trace in pending if not (trace.ended or (without_spans and trace.has_spans))]
    same = (trace for trace in left if trace.experiment_id == left[0].experiment_id)
    traces = fitting(same, count, max_bytes, lambda trace: trace.raw)
    for trace in traces:
        trace.unpack()
    return traces
