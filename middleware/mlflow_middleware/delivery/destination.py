"""One tracking server: what is pending for it, how it is doing, and what to ask of it next.

A state machine without a clock, a thread or a connection of its own. Whoever drives it calls `plan` under a lock;
performs the action without it; and calls, under it again, `answered` for each answer and then `done`. In between,
`give_up` may spool all that is pending: a trace stays in ``pending`` until it has come to its end.
"""

from __future__ import annotations

import logging
from collections import deque

from mlflow_middleware.delivery.actions import Action, Answer, ResolveExperiment
from mlflow_middleware.delivery.backoff import MAX_BACKOFF, MIN_BACKOFF, Backoff
from mlflow_middleware.delivery.batch import Batch, Passed
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.fitting import fitting
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.replies import RetryableError
from mlflow_middleware.delivery.rest import ConnectionProblem, printable
from mlflow_middleware.delivery.sinks import Sink
from mlflow_middleware.delivery.spooling import Spooling

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes in one request, about, and at least one trace."""

MAX_SENT = 64
"""Traces that are sent at a time: few enough that an exit in the middle leaves few half-sent, enough that their spans
cost the server as little as in larger batches."""

STUCK = 2.0
"""Seconds without an answer after which traces are written to the spool while the call goes on."""

MAX_SENT_AT_ONCE = 256
"""Traces whose spans are sent at a time where there is a deadline: a second of a server's work."""

SPOOL_EVERY = 1.0
"""Seconds between two files in the spool while the server is unreachable: what a crash can cost."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Destination:
    """One tracking server, and the traces that are pending for it.

    Args:
        uri: Its tracking URI.
        sink: How it takes traces.
        ledger: Counts how each trace ends.
        spooling: Where traces go while it is unreachable; None keeps them in memory.

    Attributes:
        pending: Encoded traces, the oldest first.
        server: The failures to send.
        experiment: The failures to find the experiment while nothing was pending.
        experiment_id: The experiment that the environment names, once it is known.
    """

    def __init__(self, uri: str, sink: Sink, ledger: Ledger, spooling: Spooling | None = None) -> None:
        self.uri = uri
        self.sink = sink
        self.pending: deque[EncodedTrace] = deque()
        self.server = Backoff()
        self.experiment = Backoff()
        self.experiment_id: str | None = None
        self._ledger = ledger
        self._spooling = spooling
        self._spool_at = 0.0
        self._batch: Batch | None = None
        self._batch_size = 1
        self._passed = Passed()
        self._is_provisional = False
        self._asked_at: float | None = None
        self._is_stuck = False
        self._in_a_hurry = False
        self._needs_help = False
        self._was_tried = False

    # --- what to do, and when ---

    @property
    def is_sending(self) -> bool:
        """Whether a batch is on its way: `plan` has the next part of it."""
        return self._batch is not None

    def due(self) -> float | None:
        """When it wants something; None for never."""
        if self.pending:
            return min(self.server.retry_at, self._spool_at) if self._has_to_spool() else self.server.retry_at
        if self.experiment_id is None:
            return max(self.server.retry_at, self.experiment.retry_at)
        return max(self.server.retry_at, self._spooling.look_at) if self._spooling else None

    def is_idle(self, now: float) -> bool:
        """Whether nothing is pending, nor was in the spool just now."""
        return not self.pending and (self._spooling is None or self._spooling.look_at > now)

    @property
    def is_away(self) -> bool:
        """Whether the last attempt failed in a way that another one soon will not mend."""
        return self.server.failures > 0 and self._needs_help

    @property
    def is_hopeless(self) -> bool:
        """Whether somebody with a deadline need not wait for it: it has just failed so."""
        return self.is_away and self._was_tried

    def hurry(self) -> None:
        """Note that there is a deadline from now on, as `plan` will be told; one more attempt shows how it is doing."""
        self._was_tried = False

    def wake(self) -> None:
        """End each pause between attempts: somebody waits."""
        self.server.retry_at = self.experiment.retry_at = 0.0
        if self._spooling:
            self._spooling.look_at = 0.0

    def plan(self, now: float, *, in_a_hurry: bool = False) -> Action | None:
        """What to ask of the server now; None for nothing.

        Args:
            now: The time.
            in_a_hurry: Whether there is a deadline: the spans of all that is pending come before any info.
        """
        self._in_a_hurry = in_a_hurry
        if self._batch and not self._batch.spans_only and self._wants_spans_first():
            self._batch = None
        if self._batch is None:
            if self._has_to_spool() and now >= self._spool_at:
                self._spool_at = now + SPOOL_EVERY
                self._spool(now)
            due = self.due()
            if due is None or due > now:
                return None
            self._forget_ended()
            if self._has_to_resolve():
                self._asked(now)
                return ResolveExperiment(is_needed=bool(self.pending))
            self._begin_batch(now)
        action = self._batch.next() if self._batch else None
        if action is None:
            self._finish_batch()
        self._asked(now if action else None)
        return action

    def _has_to_resolve(self) -> bool:
        """Whether the experiment that the environment names is not known, or only the one that the app has chosen."""
        if not self.pending:
            return self.experiment_id is None
        return self.pending[0].experiment_id is None and (self.experiment_id is None or self._is_provisional)

    def _begin_batch(self, now: float) -> None:
        """Take the oldest traces, all of one experiment, and from the spool if it is time."""
        if self._spooling and self._in_a_hurry:
            self._spooling.look_later(now)  # what is there is safe
        if self._spooling:
            self.pending.extend(self._spooling.load(len(self.pending), now))
        if not self.pending:
            return
        spans_only = self._wants_spans_first()
        left = [trace for trace in self.pending if not (trace.ended or (spans_only and trace.has_spans))]
        target = left[0].experiment_id
        same = (trace for trace in left if trace.experiment_id == target)
        size = MAX_SENT_AT_ONCE if spans_only and not self.server.failures else self._batch_size
        most = min(MAX_BATCH_BYTES, self._passed.too_large - 1)
        traces = fitting(same, size, most, lambda trace: trace.raw)
        for trace in traces:
            trace.unpack()
        experiment = target or str(self.experiment_id)
        self._batch = Batch(experiment, traces, self.sink, self._ledger, self._passed, spans_only=spans_only)

    def owes_spans(self) -> bool:
        """Whether a pending trace cannot be read yet, and its spans can be sent without its info."""
        return self.sink.sends_spans_apart and any(not (trace.has_spans or trace.ended) for trace in self.pending)

    def _wants_spans_first(self) -> bool:
        return self._in_a_hurry and self.owes_spans()

    def _finish_batch(self) -> None:
        if self._batch is None:  # nothing was there to be sent, or not yet: nothing is known of the server
            return
        self._batch_size = min(MAX_SENT, self._batch_size * 2)
        self._batch = None
        self._forget_ended()
        if self.server.failures:
            self.server = Backoff()
            if self._spooling:
                self._spooling.look_at = 0.0
            logger.warning("traces are sent to %s again", printable(self.uri))

    # --- what became of it ---

    def answered(self, action: Action, answer: Answer, now: float) -> None:
        """Take an answer; `SendInfos` has one for each trace, in their order."""
        self._asked(now)
        if answer is None:
            self._needs_help = False
        if isinstance(action, ResolveExperiment):
            self._experiment_answered(action, answer, now)
        elif self._batch:
            self._batch.answered(action, answer)

    def done(self, now: float) -> None:
        """No more answers come to the action."""
        self._asked(None)
        if self._batch and (problem := self._batch.problem):
            self._batch_size = self._batch.next_size
            for trace in self._batch.suspects:
                if trace in self.pending:
                    self.pending.remove(trace)
                    self.pending.append(trace)
            self._fail(problem, now)

    def failed(self, error: Exception, now: float) -> None:
        """An action ended in an error that nobody expected."""
        self._asked(None)
        self._back_off(RetryableError(f"sending failed ({type(error).__name__})"), now)

    def give_up(self, now: float) -> None:
        """When the time is over: spool what is pending, as far as the spool takes it."""
        self._spool(now, last=True)

    def settle(self, *, last: bool) -> None:
        """After that: count what the spool has not taken.

        Args:
            last: Whether the process ends, and what is left with it; otherwise that waits.
        """
        for trace in self.pending:
            if trace.has_spans:
                self._ledger.delivered(trace)  # it can be read, and found by its tags
            elif last:
                self._ledger.left(trace)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's spool files, whose locks would outlive it here."""
        for trace in self.pending:
            if trace.source:
                trace.source.release()

    # --- while a call is under way ---

    @property
    def is_in_trouble(self) -> bool:
        """Whether the server has failed, or does not answer: what is pending has to be small, and is spooled."""
        return self.server.failures > 0 or self._is_stuck

    def look(self, now: float) -> bool:
        """See whether traces are to be spooled although a call is under way: they may be all that a crash leaves."""
        if self._asked_at is None or self._spooling is None:
            return False
        if not self._is_stuck and now - self._asked_at >= STUCK:
            self._is_stuck = True
            if not self.server.failures:
                logger.warning("traces are spooled meanwhile: %s does not answer", printable(self.uri))
        return self.is_in_trouble and now >= self._spool_at

    def rescue(self, now: float) -> None:
        """Spool what is pending, in the middle of a call; its answer counts for nothing that is spooled by then."""
        self._spool_at = now + SPOOL_EVERY
        self._spool(now, suspects_stay=True)

    def _asked(self, at: float | None) -> None:
        self._asked_at, self._is_stuck = at, False

    def _experiment_answered(self, action: ResolveExperiment, answer: Answer, now: float) -> None:
        if answer is None:
            self.experiment_id, self._is_provisional = action.experiment_id, not action.is_needed
        elif isinstance(answer, ConnectionProblem) and action.is_needed:
            self._fail(answer, now)
        else:
            self.experiment.fail(now, None, self._longest_pause())
            if str(answer) not in (self.experiment.problem, self.server.problem):
                self.experiment.problem = str(answer)
                logger.warning("traces will wait: %s. Trying again, with up to %.0f s between.", answer, MAX_BACKOFF)

    def _fail(self, problem: RetryableError | ConnectionProblem, now: float) -> None:
        self._back_off(problem, now)
        self._spool(now, suspects_stay=getattr(problem, "ill", False))

    def _back_off(self, problem: RetryableError | ConnectionProblem, now: float) -> None:
        for trace in self._batch.traces if self._batch else ():
            trace.pack()
            self._ledger.resize(trace)
        self._batch = None
        self._forget_ended()
        self._needs_help, self._was_tried = problem.needs_help, True
        self.server.fail(now, getattr(problem, "after", None), self._longest_pause())
        if str(problem) not in (self.server.problem, self.experiment.problem):
            self.server.problem = str(problem)
            logger.warning("traces wait: %s. Trying again, with up to %.0f s between.", problem, MAX_BACKOFF)

    def _longest_pause(self) -> float:
        return MIN_BACKOFF if self._ledger.queue.is_flushing else MAX_BACKOFF

    # --- the spool ---

    def _has_to_spool(self) -> bool:
        """Whether traces are in memory that belong into the spool, because the server is unreachable."""
        if not (self._spooling and self.server.failures):
            return False
        return any(trace.source is None and not trace.failures for trace in self.pending)

    def _spool(self, now: float, *, suspects_stay: bool = False, last: bool = False) -> None:
        if self._spooling:
            self.pending = deque(self._spooling.save(self.pending, now, suspects_stay=suspects_stay, last=last))

    def _forget_ended(self) -> None:
        """Take those out that have come to their end, up to the first that has not."""
        while self.pending and self.pending[0].ended:
            self.pending.popleft()
