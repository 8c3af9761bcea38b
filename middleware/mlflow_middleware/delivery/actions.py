"""What can be asked of a server, and how it is asked: all that takes time, and none of it under a lock."""

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
    """Find the experiment that the environment names, or one by its name.

    Attributes:
        is_needed: Whether a trace waits for it.
        name: Its name; empty for the one that the environment names.
        experiment_id: What was found.
    """

    is_needed: bool
    name: str = ""
    experiment_id: str | None = None


@dataclass(slots=True)
class SendInfos:
    """Send the info of each trace; with its spans, if the server takes those together.

    Attributes:
        answered: For how many of the traces there was an answer.
    """

    experiment_id: str
    traces: Sequence[EncodedTrace]
    answered: int = 0


@dataclass(slots=True)
class SendSpans:
    """Send the spans of many traces in one request."""

    experiment_id: str
    traces: Sequence[EncodedTrace]


@dataclass(slots=True)
class DeleteInfo:
    """Delete the info of a trace whose spans were refused."""

    experiment_id: str
    trace: EncodedTrace
    error: PermanentError


Action = ResolveExperiment | SendInfos | SendSpans | DeleteInfo
"""What is to be asked of a server."""

Answer = Outcome | ConnectionProblem
"""What became of it; None if all is well."""


def perform(action: Action, sink: Sink, resolve: Callable[[], str]) -> Generator[Answer, None, None]:
    """Talk to the server; yields each answer as it comes. Whoever closes it early does not wait for the others.

    Args:
        action: What to ask of it.
        sink: The server.
        resolve: Finds the experiment; raises ConnectionProblem.
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
