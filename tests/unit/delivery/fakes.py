"""A clock that a test sets, a server with scripted answers, and the sender's loop without its thread."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlflow_middleware.delivery.actions import Action, perform
from mlflow_middleware.delivery.destination import Destination
from mlflow_middleware.delivery.disk import at_once
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.replies import Outcome
from mlflow_middleware.delivery.rest import ConnectionProblem
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.spooling import Spooling
from mlflow_middleware.delivery.stats import Stats

URI = "http://tracking"
SIZE = 1000


class Clock:
    """Seconds that pass only when a test advances them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Finished:
    """Return a finished trace; the only place of these tests that knows delivery's requirements on one."""

    trace_id: str = "tr-1"
    tracking_uri: str = URI
    experiment_id: str | None = None
    size: int = SIZE
    since: float = 0.0
    supplement: bool = False
    complete: bool = True
    on_encode: Callable[[], object] = bool
    forgotten: bool = False
    assessed: None = None

    def is_complete(self) -> bool:
        return self.complete

    def forget_contents(self) -> None:
        self.forgotten = True

    def content(self, experiment_id: str) -> Any:
        self.on_encode()
        return SimpleNamespace(otlp=b"", info=b"{}", prompts=(), attachments={}, has_late_spans=False, assessed=0)


def finished(trace_id: str = "tr-1", **values: Any) -> Any:
    return Finished(trace_id, **values)


class FakeServer:
    """A sink that records its calls, and returns scripted answers.

    Attributes:
        infos: The answer to a trace's info.
        spans: The answer to the spans of many traces.
        asked: Each request, as its kind and its traces.
        stops_after: The maximal number of infos that it answers in a request.
    """

    def __init__(self) -> None:
        self.sends_spans_apart = True
        self.infos: Callable[[str], Outcome] = lambda trace_id: None
        self.spans: Callable[[list[str]], Outcome] = lambda trace_ids: None
        self.asked: list[tuple[str, list[str]]] = []
        self.experiments: set[str] = set()
        self.stops_after = 1000

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        self.asked.append(("infos", [trace.trace_id for trace in traces]))
        self.experiments.add(experiment_id)
        for trace in traces[: self.stops_after]:
            yield self.infos(trace.trace_id)

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        trace_ids = [trace.trace_id for trace in traces]
        self.asked.append(("spans", trace_ids))
        self.experiments.add(experiment_id)
        if outcome := self.spans(trace_ids):
            raise outcome

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        self.asked.append(("delete", [trace.trace_id]))

    def close(self) -> None:
        pass

    def requests(self, kind: str) -> list[list[str]]:
        """Return the traces of each request of a kind."""
        return [traces for asked, traces in self.asked if asked == kind]


@dataclass
class Driven:
    """A destination, driven by hand like the sender does."""

    spool: Spool | None = None
    clock: Clock = field(default_factory=Clock)
    server: FakeServer = field(default_factory=FakeServer)
    stats: Stats = field(default_factory=Stats)
    resolve: Callable[[], str] = lambda: "7"
    run: Callable[[Callable[[], object]], None] = at_once
    in_a_hurry: bool = False

    def __post_init__(self) -> None:
        self.queue = TraceQueue(1_000_000, self.clock)
        self.ledger = ledger = Ledger(self.queue, self.stats)
        spooling = Spooling(self.spool, ledger, self.run) if self.spool else None
        self.destination = Destination(URI, self.server, ledger, spooling)

    def add(
        self, *trace_ids: str, experiment_id: str | None = None, info: bytes = b"{}", supplement: bool = False
    ) -> None:
        """Add pending traces."""
        for trace_id in trace_ids:
            assert self.queue.put(finished(trace_id))
            encoded = EncodedTrace(trace_id, experiment_id, b"", info, supplement=supplement, held=SIZE)
            self.destination.pending.append(encoded)
        self.queue.take()

    def plan(self) -> Action | None:
        return self.destination.plan(self.clock.now, in_a_hurry=self.in_a_hurry)

    def perform(self, action: Action) -> None:
        for answer in perform(action, self.server, self.resolve):
            self.destination.answered(action, answer, self.clock.now)
        self.destination.done(self.clock.now)

    def work(self) -> None:
        """Do all work that is due now."""
        while (due := self.destination.due()) is not None and due <= self.clock.now:
            while action := self.plan():
                self.perform(action)

    def wait(self) -> float:
        """Let time pass until work is due, and do it; return the seconds."""
        due = self.destination.due()
        assert due is not None
        passed, self.clock.now = due - self.clock.now, due
        self.work()
        return passed

    def pending(self) -> list[str]:
        return [trace.trace_id for trace in self.destination.pending if not trace.ended]


def away() -> str:
    raise ConnectionProblem("the server is unreachable")


def spool_in(directory: Path) -> Spool:
    return Spool(directory, 1_000_000)
