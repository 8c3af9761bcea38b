"""How a tracking server is doing: the call that is under way, and the attempts that have failed."""

from __future__ import annotations

import logging
from collections import Counter

from mlflow_middleware.delivery.backoff import MAX_BACKOFF, Backoff
from mlflow_middleware.delivery.replies import RetryableError, reason_of
from mlflow_middleware.delivery.rest import ConnectionProblem, printable

STUCK = 2.0
"""Seconds without an answer after which traces are written to the spool while the call goes on."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Health:
    """How one tracking server is doing, without a clock of its own.

    Args:
        uri: Its tracking URI.

    Attributes:
        server: The failures to send.
        experiment: The failures to find the experiment while nothing was pending.
        failures: How many attempts have failed so far, by reason.
    """

    def __init__(self, uri: str) -> None:
        self.server = Backoff()
        self.experiment = Backoff()
        self.failures: Counter[str] = Counter()
        self._uri = uri
        self._asked_at: float | None = None
        self._is_stuck = False
        self._needs_help = False
        self._was_tried = False

    @property
    def is_in_trouble(self) -> bool:
        """Whether the server has failed, or does not answer: what is pending has to be small, and is spooled."""
        return self.server.failures > 0 or self._is_stuck

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt, of either kind, has failed."""
        return self.server.failures + self.experiment.failures > 0

    @property
    def is_away(self) -> bool:
        """Whether the last attempt failed in a way that another one soon will not mend."""
        return self.server.failures > 0 and self._needs_help

    @property
    def is_hopeless(self) -> bool:
        """Whether somebody with a deadline need not wait for it: it has just failed so."""
        return self.is_away and self._was_tried

    def hurry(self) -> None:
        """Note that there is a deadline from now on; one more attempt shows how the server is doing."""
        self._was_tried = False

    def wake(self) -> None:
        """End each pause between attempts."""
        self.server.retry_at = self.experiment.retry_at = 0.0

    def asked(self, at: float | None) -> None:
        """Note when the call that is under way began, or got its last answer; None for no call."""
        self._asked_at, self._is_stuck = at, False

    def answered(self) -> None:
        """Note that a call succeeded."""
        self._needs_help = False

    def look(self, now: float) -> bool:
        """See whether the call that is under way leaves a server's traces in danger: they may be all that a crash
        leaves."""
        if self._asked_at is None:
            return False
        if not self._is_stuck and now - self._asked_at >= STUCK:
            self._is_stuck = True
            if not self.server.failures:
                logger.warning("traces go to spool_dir until the server answers again: %s", printable(self._uri))
        return self.is_in_trouble

    def recovered(self) -> bool:
        """Take a whole batch that was sent; returns whether the server had failed before."""
        if not self.server.failures:
            return False
        self.server = Backoff()
        logger.warning("traces are sent again: %s", printable(self._uri))
        return True

    def fail(self, problem: RetryableError | ConnectionProblem, now: float, longest_pause: float) -> None:
        """Back off after a failure to send."""
        self.failures[reason_of(problem)] += 1
        self._needs_help, self._was_tried = problem.needs_help, True
        self.server.fail(now, getattr(problem, "after", None), longest_pause)
        if str(problem) not in (self.server.problem, self.experiment.problem):
            self.server.problem = str(problem)
            logger.warning("traces are waiting, with retries at most %.0f s apart: %s", MAX_BACKOFF, problem)

    def found_experiment(self) -> None:
        """Note that the experiment is known, so that nothing of the search for it counts any more."""
        self.experiment = Backoff()

    def fail_experiment(self, answer: object, now: float, longest_pause: float) -> None:
        """Back off after a failure to find the experiment while nothing was pending."""
        self.failures[reason_of(answer)] += 1
        self.experiment.fail(now, None, longest_pause)
        if str(answer) not in (self.experiment.problem, self.server.problem):
            self.experiment.problem = str(answer)
            logger.warning("traces cannot be sent yet, with retries at most %.0f s apart: %s", MAX_BACKOFF, answer)
