"""One batch on its way to a server: first the infos, then the spans; one that is refused is halved."""

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
"""Failures of one trace, while others pass, after which it counts as refused."""

logger = logging.getLogger("mlflow_middleware.delivery")


@dataclass(slots=True)
class Passed:
    """How much a server has taken so far."""

    infos: int = 0
    spans: int = 0
    too_large: int = sys.maxsize  # bytes of spans that it did not take at once
    is_cut_told: bool = False


class Batch:
    """Some pending traces of one experiment, how far they are, and what each answer means for them.

    In this order a server works half as long as in the other one: it does not have to merge the info into a trace that
    it has made up from the spans. With a deadline, the spans of all that is pending come before any info: a trace
    without its info can be read, one without its spans cannot.

    Args:
        experiment_id: Where they go.
        traces: The traces; they stay pending in their destination meanwhile.
        sink: How the server takes them.
        ledger: Counts how each of them ends.
        passed: What the server has taken, of earlier batches too.
        spans_only: Whether the infos are left to a later batch.

    Attributes:
        problem: Why the batch has to be sent again, if it has to.
        next_size: How many traces to send at a time after that problem.
        suspects: Those that the server failed over while they were sent alone.
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
        """What comes next; None when the batch is through. A trace that has ended meanwhile is left out."""
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
        """Take an answer; `SendInfos` has one for each trace, in their order."""
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
            self._tell_cut(trace, error)
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
            if answer.ill and len(traces) == 1:  # smaller batches will show over which trace the server failed
                self._suspect(traces[0], answer, self._passed.spans)
        elif self._sink.sends_spans_apart:
            self._passed.spans += 1
            for trace in traces:
                trace.has_spans = True
                if trace.has_info:
                    self._ledger.delivered(trace)
        else:  # it has just turned out that this server takes no spans apart
            self._groups.clear()
            self._refuse_additions()
            for trace in self.traces:
                trace.has_info = False

    def _refuse_additions(self) -> None:
        for trace in self.traces:
            if trace.is_addition and not trace.ended:
                self._ledger.refused(trace, PermanentError("this server accepts the spans of a trace only once"))

    def _spans_refused(self, traces: Sequence[EncodedTrace], error: PermanentError) -> None:
        """Halve the batch until the poisonous trace stands alone."""
        if isinstance(error, TooLarge):
            size = sum(len(trace.otlp) for trace in traces)
            self._passed.too_large = min(size, self._passed.too_large)
        if len(traces) > 1:
            half = len(traces) // 2
            self._groups[0] = traces[half:]
            self._groups.appendleft(traces[:half])
        elif isinstance(error, TooLarge) and traces[0].cut():
            self._ledger.resize(traces[0])
            self._tell_cut(traces[0], error)
        elif traces[0].supplement or traces[0].source or not traces[0].has_info:  # the info may have been there before
            self._ledger.refused(traces[0], error)
        else:
            self._refused = traces[0], error

    def _tell_cut(self, trace: EncodedTrace, error: TooLarge) -> None:
        if not self._passed.is_cut_told:
            self._passed.is_cut_told = True
            logger.warning(
                "trace too large for the server or a proxy in front of it, sent without its largest inputs, outputs or "
                "tags, as are others like it; raise the limit there, or lower max_body_bytes: %s: %s",
                trace.trace_id,
                error,
            )

    def _suspect(self, trace: EncodedTrace, problem: RetryableError, passed: int) -> None:
        """The server failed over this trace alone: it is sent last from now on, and is refused in the end."""
        if not trace.failures:
            trace.passed_at_first_failure = passed
        trace.failures += 1
        if trace.failures >= PATIENCE and passed > trace.passed_at_first_failure:
            self._ledger.refused(trace, problem)
        else:
            self.suspects.append(trace)


def next_of(pending: Iterable[EncodedTrace], count: int, max_bytes: int, *, without_spans: bool) -> list[EncodedTrace]:
    """The oldest pending traces that go together: all of one experiment.

    Args:
        pending: What is pending, of which at least one trace is to be sent.
        count: How many at most.
        max_bytes: Bytes of all of them at most.
        without_spans: Leave out those whose spans the server has.
    """
    left = [trace for trace in pending if not (trace.ended or (without_spans and trace.has_spans))]
    same = (trace for trace in left if trace.experiment_id == left[0].experiment_id)
    traces = fitting(same, count, max_bytes, lambda trace: trace.raw)
    for trace in traces:
        trace.unpack()
    return traces
