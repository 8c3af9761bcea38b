"""The requests to a server, and their execution: everything that takes time, and nothing of it under a lock."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.replies import Outcome, PermanentError, outcome_of
from mlflow_middleware.delivery.rest import ConnectionProblem
from mlflow_middleware.delivery.sinks import Sink


@dataclass(slots=True)
class ResolveExperiment:
    """Request for the experiment that the environment specifies, or for one by its name.

    Attributes:
        is_needed: Whether a trace waits for it.
        name: Its name; empty for the experiment of the environment.
        experiment_id: The id that was found.
    """

    is_needed: bool
    name: str = ""
    experiment_id: str | None = None


@dataclass(slots=True)
class SendInfos:
    """Request to store the info of each trace, together with its spans if the server takes both at once.

    Attributes:
        answered: Number of traces with a result.
    """

    experiment_id: str
    traces: Sequence[EncodedTrace]
    answered: int = 0


@dataclass(slots=True)
class SendSpans:
    """Request to store the spans of many traces at once."""

    experiment_id: str
    traces: Sequence[EncodedTrace]


@dataclass(slots=True)
class DeleteInfo:
    """Request to delete the info of a trace whose spans have been refused."""

    experiment_id: str
    trace: EncodedTrace
    error: PermanentError


Action = ResolveExperiment | SendInfos | SendSpans | DeleteInfo
"""A request to a server."""

Answer = Outcome | ConnectionProblem
"""The result of a request; None if it succeeded."""


def perform(action: Action, sink: Sink, resolve: Callable[[], str]) -> Generator[Answer, None, None]:
    """Perform a request, and yield each result as it arrives; closing the generator early skips the others.

    Args:
        action: The request.
        sink: The sink of the server.
        resolve: Finds the experiment, or raises ConnectionProblem.
    """
    if isinstance(action, SendInfos):
        with closing(sink.send_infos(action.experiment_id, action.traces)) as outcomes:
            for _, outcome in zip(action.traces, outcomes, strict=False):
                yield outcome
    elif isinstance(action, SendSpans):
        yield outcome_of(sink.send_spans, action.experiment_id, action.traces)
    elif isinstance(action, DeleteInfo):
        sink.delete_info(action.experiment_id, action.trace)
        yield None
    else:
        try:
            action.experiment_id = resolve()
        except ConnectionProblem as problem:
            yield problem
        else:
            yield None
