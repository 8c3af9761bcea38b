"""The health of a tracking server: the call in progress and the failed attempts."""

from __future__ import annotations

import logging
from collections import Counter

from mlflow_middleware.delivery.backoff import MAX_BACKOFF, Backoff
from mlflow_middleware.delivery.replies import RetryableError, reason_of
from mlflow_middleware.delivery.rest import ConnectionProblem, printable

STUCK = 2.0
"""Seconds without a response after which traces are spooled during the call."""

logger = logging.getLogger("mlflow_middleware.delivery")


class Health:
    """The health of one tracking server, without its own clock.

    Args:
        uri: The tracking URI.

    Attributes:
        server: Backoff after failures to send.
        experiment: Backoff after failures to find the experiment while nothing was pending.
        failures: Number of failed attempts by reason.
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
        """Whether the server has failed or does not respond, so that pending traces are compressed and spooled."""
        return self.server.failures > 0 or self._is_stuck

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt of either kind has failed."""
        return self.server.failures + self.experiment.failures > 0

    @property
    def is_unreachable(self) -> bool:
        """Whether the last attempt has failed in a way that an early retry will not fix."""
        return self.server.failures > 0 and self._needs_help

    @property
    def is_hopeless(self) -> bool:
        """Whether the server has failed like that since the deadline was set, so that waiting for it is pointless."""
        return self.is_unreachable and self._was_tried

    def hurry(self) -> None:
        """Record that there is a deadline from now on; one more attempt shows the server's state."""
        self._was_tried = False

    def wake(self) -> None:
        """End the pauses between attempts."""
        self.server.retry_at = self.experiment.retry_at = 0.0

    def asked(self, at: float | None) -> None:
        """Record when the call in progress began or got its last response; None for no call."""
        self._asked_at, self._is_stuck = at, False

    def answered(self) -> None:
        """Record that a call succeeded."""
        self._needs_help = False

    def look(self, now: float) -> bool:
        """Check the call in progress; return whether the pending traces should be spooled, in case of a crash."""
        if self._asked_at is None:
            return False
        if not self._is_stuck and now - self._asked_at >= STUCK:
            self._is_stuck = True
            if not self.server.failures:
                logger.warning("traces go to spool_dir until the server answers again: %s", printable(self._uri))
        return self.is_in_trouble

    def recovered(self) -> bool:
        """Record that a whole batch was sent; return whether the server had failed before."""
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
        """Record that the experiment is known, and forget the failures to find it."""
        self.experiment = Backoff()

    def fail_experiment(self, answer: object, now: float, longest_pause: float) -> None:
        """Back off after a failure to find the experiment while nothing was pending."""
        self.failures[reason_of(answer)] += 1
        self.experiment.fail(now, None, longest_pause)
        if str(answer) not in (self.experiment.problem, self.server.problem):
            self.experiment.problem = str(answer)
            logger.warning("traces cannot be sent yet, with retries at most %.0f s apart: %s", MAX_BACKOFF, answer)
