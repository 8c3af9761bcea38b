"""The experiments of one server: those that traces specify, and their ids on the server."""

from __future__ import annotations

import logging

from mlflow_middleware.delivery.actions import ResolveExperiment
from mlflow_middleware.delivery.encoded import is_name

logger = logging.getLogger("mlflow_middleware.delivery")


class Experiments:
    """The known experiments of a server.

    Args:
        has_any: Whether the server has experiments; collectors have none.

    Attributes:
        of_environment: The id of the environment's experiment; None until it is known.
    """

    def __init__(self, *, has_any: bool) -> None:
        self.of_environment: str | None = None if has_any else ""
        self._has_any = has_any
        self._is_provisional = False
        self._named: dict[str, str | None] = {}

    def question(self, experiment: str | None, *, is_needed: bool) -> ResolveExperiment | None:
        """Return the request that must precede the sending of a trace; None if none is needed.

        Args:
            experiment: The trace's experiment: a name, an id, or None for that of the environment.
            is_needed: Whether there is a trace; without one, the environment's experiment is resolved in advance.
        """
        if not self._has_any:
            return None
        if experiment and is_name(experiment):
            if experiment not in self._named:
                return ResolveExperiment(is_needed=True, name=experiment)
            experiment = self._named[experiment]
        is_open = self.of_environment is None or (is_needed and self._is_provisional)
        return ResolveExperiment(is_needed=is_needed) if experiment is None and is_open else None

    def answered(self, question: ResolveExperiment) -> None:
        """Record the experiment that was found."""
        if question.name:
            self._named[question.name] = question.experiment_id
        else:
            self.of_environment, self._is_provisional = question.experiment_id, not question.is_needed

    def give_up(self, name: str, problem: object) -> None:
        """Redirect the traces of an unusable experiment to that of the environment; no other trace has to wait."""
        logger.warning(
            "experiment cannot be used, its traces go to that of MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID "
            "instead: %r: %s",
            name,
            problem,
        )
        self._named[name] = None

    def id_of(self, experiment: str | None) -> str:
        """Return the server's id of an experiment."""
        known = self._named.get(experiment, experiment) if experiment else None
        return known or str(self.of_environment)
