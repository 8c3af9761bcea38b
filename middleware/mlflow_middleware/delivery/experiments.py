"""The experiments of one server: what a trace names, and the id that the server knows it by."""

from __future__ import annotations

import logging

from mlflow_middleware.delivery.actions import ResolveExperiment
from mlflow_middleware.delivery.encoded import is_name

logger = logging.getLogger("mlflow_middleware.delivery")


class Experiments:
    """What is known of a server's experiments.

    Args:
        has_any: Whether there are any; a collector knows none.

    Attributes:
        of_environment: The id of the one that the environment names, once it is known.
    """

    def __init__(self, *, has_any: bool) -> None:
        self.of_environment: str | None = None if has_any else ""
        self._has_any = has_any
        self._is_provisional = False
        self._named: dict[str, str | None] = {}

    def question(self, experiment: str | None, *, is_needed: bool) -> ResolveExperiment | None:
        """What is to be asked before a trace can be sent; None for nothing.

        Args:
            experiment: The trace's: a name, an id, or None for the one that the environment names.
            is_needed: Whether there is a trace; without one, the environment's is asked for in advance.
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
        """Take what was found."""
        if question.name:
            self._named[question.name] = question.experiment_id
        else:
            self.of_environment, self._is_provisional = question.experiment_id, not question.is_needed

    def give_up(self, name: str, problem: object) -> None:
        """Send what goes to an experiment that cannot be used to that of the environment; nothing else has to wait."""
        logger.warning(
            "experiment cannot be used, its traces go to that of MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID "
            "instead: %r: %s",
            name,
            problem,
        )
        self._named[name] = None

    def id_of(self, experiment: str | None) -> str:
        """The id that the server knows an experiment by."""
        known = self._named.get(experiment, experiment) if experiment else None
        return known or str(self.of_environment)
