"""One tracking server: its pending traces, its health, and the next request to it.

This is a state machine without its own clock, thread or connection. The driver calls `plan` under a lock, performs
the action without it, and then, under the lock again, calls `answered` for each result and finally `done`. In
between, `give_up` may spool all pending traces: a trace stays in ``pending`` until it has ended.
"""

from __future__ import annotations

from collections import deque

from mlflow_middleware.delivery.actions import Action, Answer, ResolveExperiment
from mlflow_middleware.delivery.backoff import MAX_BACKOFF, MIN_BACKOFF
from mlflow_middleware.delivery.batch import Batch, Passed, next_of
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.experiments import Experiments
from mlflow_middleware.delivery.health import Health
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.otlp_variables import PREFIX
from mlflow_middleware.delivery.replies import RetryableError
from mlflow_middleware.delivery.rest import ConnectionProblem, NoAccess
from mlflow_middleware.delivery.sinks import Sink
from mlflow_middleware.delivery.spooling import Spooling

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Approximate maximum size of one request, in bytes; it always contains at least one trace."""

MAX_SENT = 64
"""Maximum number of traces that are sent at a time: few enough that an interrupting exit leaves few half-sent, enough
that their spans cost the server as little as in larger batches."""

MAX_SENT_AT_ONCE = 256
"""Maximum number of traces whose spans are sent at a time before a deadline: about a second of a server's work."""

SPOOL_EVERY = 1.0
"""Seconds between two files in the spool while the server is unreachable: the traces that a crash can lose."""


class Destination:
    """One tracking server and the traces that are pending for it.

    Args:
        uri: The tracking URI.
        sink: The sink of the server.
        ledger: Counts the result of each trace.
        spooling: Takes traces while the server is unreachable; None keeps them in memory.

    Attributes:
        pending: Encoded traces, oldest first.
        health: The server's health.
        experiments: The experiments of its traces.
    """

    def __init__(self, uri: str, sink: Sink, ledger: Ledger, spooling: Spooling | None = None) -> None:
        self.uri = uri
        self.sink = sink
        self.pending: deque[EncodedTrace] = deque()
        self.health = Health(uri)
        self.experiments = Experiments(has_any=not uri.startswith(PREFIX))
        self._ledger = ledger
        self._spooling = spooling
        self._spool_at = 0.0
        self._batch: Batch | None = None
        self._batch_size = 1
        self._passed = Passed()
        self._in_a_hurry = False

    @property
    def is_sending(self) -> bool:
        """Whether a batch is in transit: `plan` returns its next part."""
        return self._batch is not None

    def due(self) -> float | None:
        """Return the time of the next action; None if there is none."""
        retry_at = self.health.server.retry_at
        if self.pending:
            return min(retry_at, self._spool_at) if self._has_to_spool() else retry_at
        if self.experiments.of_environment is None:
            return max(retry_at, self.health.experiment.retry_at)
        return max(retry_at, self._spooling.look_at) if self._spooling else None

    def is_idle(self, now: float) -> bool:
        """Return whether nothing is pending and the spool was empty at the last look."""
        return not self.pending and (self._spooling is None or self._spooling.look_at > now)

    def wake(self) -> None:
        """End the pauses between attempts, because someone waits."""
        self.health.wake()
        if self._spooling:
            self._spooling.look_at = 0.0

    def plan(self, now: float, *, in_a_hurry: bool = False) -> Action | None:
        """Return the next request to the server; None if there is none.

        Args:
            now: The current time.
            in_a_hurry: Whether there is a deadline: the spans of all pending traces are sent before any info.
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
            if question := self._experiment_request():
                self.health.asked(now)
                return question
            self._begin_batch(now)
        action = self._batch.next() if self._batch else None
        if action is None:
            self._finish_batch()
        self.health.asked(now if action else None)
        return action

    def _experiment_request(self) -> ResolveExperiment | None:
        """Return the request for the next trace's experiment, if its id is unknown."""
        experiment = self.pending[0].experiment_id if self.pending else None
        return self.experiments.question(experiment, is_needed=bool(self.pending))

    def _begin_batch(self, now: float) -> None:
        """Start a batch of the oldest traces; load some from the spool if it is time."""
        if self._spooling:
            if self._in_a_hurry:
                self._spooling.look_later(now)  # spooled traces are safe
            self.pending.extend(self._spooling.load(len(self.pending), now))
        if self.pending:
            spans_only = self._wants_spans_first()
            size = MAX_SENT_AT_ONCE if spans_only and not self.health.server.failures else self._batch_size
            most = min(MAX_BATCH_BYTES, self._passed.too_large - 1)
            traces = next_of(self.pending, size, most, without_spans=spans_only)
            experiment = self.experiments.id_of(traces[0].experiment_id)
            self._batch = Batch(experiment, traces, self.sink, self._ledger, self._passed, spans_only=spans_only)

    def owes_spans(self) -> bool:
        """Return whether a pending trace is not readable yet and its spans can be sent without its info."""
        return self.sink.sends_spans_apart and any(not (trace.has_spans or trace.ended) for trace in self.pending)

    def _wants_spans_first(self) -> bool:
        return self._in_a_hurry and self.owes_spans()

    def _finish_batch(self) -> None:
        if self._batch is None:  # nothing was sent, so the server's state is unknown
            return
        self._batch_size = min(MAX_SENT, self._batch_size * 2)
        self._batch = None
        self._forget_ended()
        if self.health.recovered() and self._spooling:
            self._spooling.look_at = 0.0

    def answered(self, action: Action, answer: Answer, now: float) -> None:
        """Process a result; `SendInfos` has one for each trace, in order."""
        self.health.asked(now)
        if answer is None:
            self.health.answered()
        if isinstance(action, ResolveExperiment):
            self._experiment_answered(action, answer, now)
        elif self._batch:
            self._batch.answered(action, answer)

    def done(self, now: float) -> None:
        """Record that the action has no more results."""
        self.health.asked(None)
        if self._batch and (problem := self._batch.problem):
            self._batch_size = self._batch.next_size
            for trace in self._batch.suspects:
                if trace in self.pending:
                    self.pending.remove(trace)
                    self.pending.append(trace)
            self._fail(problem, now)

    def failed(self, error: Exception, now: float) -> None:
        """Record that an action raised an unexpected error."""
        self.health.asked(None)
        self._back_off(RetryableError(f"sending failed ({type(error).__name__})"), now)

    def give_up(self, now: float) -> None:
        """Spool the pending traces as far as the spool takes them, when the time is over."""
        self._spool(now, last=True)

    def abandon(self) -> None:
        """Release the parent's spool files in a forked child, where their locks would outlive the parent."""
        for trace in self.pending:
            if trace.source:
                trace.source.release()

    def look(self, now: float) -> bool:
        """Return whether pending traces should be spooled during the call in progress."""
        return self._spooling is not None and self.health.look(now) and now >= self._spool_at

    def rescue(self, now: float) -> None:
        """Spool the pending traces during a call; its result does not count for traces that are spooled by then."""
        self._spool_at = now + SPOOL_EVERY
        self._spool(now, suspects_stay=True)

    def _experiment_answered(self, action: ResolveExperiment, answer: Answer, now: float) -> None:
        if answer is None:
            self.experiments.answered(action)
            self.health.found_experiment()
        elif action.name and isinstance(answer, ConnectionProblem) and not isinstance(answer, NoAccess):
            self.experiments.give_up(action.name, answer)
        elif isinstance(answer, ConnectionProblem) and action.is_needed:
            self._fail(answer, now)
        else:
            self.health.fail_experiment(answer, now, self._longest_pause())

    def _fail(self, problem: RetryableError | ConnectionProblem, now: float) -> None:
        self._back_off(problem, now)
        self._spool(now, suspects_stay=getattr(problem, "ill", False))

    def _back_off(self, problem: RetryableError | ConnectionProblem, now: float) -> None:
        for trace in self._batch.traces if self._batch else ():
            trace.pack()
            self._ledger.resize(trace)
        self._batch = None
        self._forget_ended()
        self.health.fail(problem, now, self._longest_pause())

    def _longest_pause(self) -> float:
        return MIN_BACKOFF if self._ledger.queue.is_flushing else MAX_BACKOFF

    def _has_to_spool(self) -> bool:
        """Return whether traces in memory must be spooled because the server is unreachable."""
        if not (self._spooling and self.health.server.failures):
            return False
        return any(trace.source is None and not trace.failures for trace in self.pending)

    def _spool(self, now: float, *, suspects_stay: bool = False, last: bool = False) -> None:
        if self._spooling:
            self.pending = deque(self._spooling.save(self.pending, now, suspects_stay=suspects_stay, last=last))

    def _forget_ended(self) -> None:
        """Remove ended traces, up to the first that has not ended."""
        while self.pending and self.pending[0].ended:
            self.pending.popleft()
