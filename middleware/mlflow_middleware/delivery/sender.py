"""The one daemon thread that takes finished traces to their servers."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.experiment import resolve_experiment
from mlflow_middleware.delivery.fitting import fitting
from mlflow_middleware.delivery.queue import MAX_BATCH, TraceQueue
from mlflow_middleware.delivery.replies import PermanentError, RetryableError
from mlflow_middleware.delivery.rest import ConnectionProblem, printable, serves
from mlflow_middleware.delivery.sinks import Sink, sink_for
from mlflow_middleware.delivery.spool import Spool, SpoolProblem
from mlflow_middleware.delivery.stats import Stats
from mlflow_middleware.guard import report

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge import FinishedTrace

MIN_BACKOFF, MAX_BACKOFF = 0.5, 30.0
"""Seconds between two attempts, after the first failure and at most."""

MAX_RETRY_AFTER = 300.0
"""Seconds that a server's ``Retry-After`` is honoured at most."""

START_UP = 0.5
"""Seconds after its start that the sender looks for the server, unless a trace comes first: until then the app may
still choose another one."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes in one request, about, and at least one trace."""

LATE_SPANS = 3.0
"""Seconds that a trace waits for spans that outlive its root; later ones are added when they end."""

MAX_TAKE_IN = 0.25
"""Seconds of encoding after which what is encoded is sent; an exit waits no longer for that."""

MAX_GIVE_UP = 0.25
"""Seconds of an exit, when its time is over, in which bodies are still read; what is left is spooled without them."""

AHEAD = 128
"""Traces that wait for a server encoded. More are encoded as these are sent: while an app has more requests than the
server can take, all of the processor is the app's."""

AT_ONCE, AT_ONCE_BYTES = 4, 16 * 1024
"""Traces that are encoded together, and what they may hold: they take about `MAX_STRETCH`."""

MAX_STRETCH = 0.0005
"""Seconds of encoding after which the app's threads are let in, for as long: the interpreter would do that after 5 ms,
which is what a request would wait."""

MAX_STRETCH_FILLING = 0.005
"""The same while the queue fills up: what is encoded is packed, and takes a third of the room."""

SPOOL_LOOK = 5.0
"""Seconds between two looks for files of other processes in the spool."""

SPOOL_EVERY = 1.0
"""Seconds between two files in the spool while the server is away: what a crash can cost."""

MAX_SENT = 64
"""Traces that are sent at a time: few enough that an exit in the middle leaves few half-sent, enough that their spans
cost the server as little as in larger batches."""

MAX_FROM_SPOOL = 1024
"""Traces that may wait in memory when another file is loaded from the spool."""

PATIENCE = 5
"""Failures of one trace, while others pass, after which it counts as refused."""

LOG_INTERVAL = 30.0
"""Seconds between two log lines about the same trouble."""

_NOT_TRIED = PermanentError("not tried")

P = ParamSpec("P")
R = TypeVar("R")

_random = random.SystemRandom()
"""What an app has seeded for itself is left alone; and no two workers draw the same after a fork."""

logger = logging.getLogger("mlflow_middleware.delivery")


@dataclass(slots=True)
class Destination:
    """One tracking server, what waits for it, and how it is doing."""

    uri: str
    sink: Sink
    spool: Spool | None = None
    experiment_id: str | None = None
    unread: deque[FinishedTrace] = field(default_factory=deque)
    waiting: deque[EncodedTrace] = field(default_factory=deque)
    batch: int = 1
    announced: int = 0
    stored: int = 0
    failures: int = 0
    retry_at: float = 0.0
    look_at: float = 0.0
    spool_at: float = 0.0
    problem: str = ""
    experiment_failures: int = 0
    experiment_at: float = 0.0
    experiment_problem: str = ""

    def due(self) -> float | None:
        """When it wants something; None for never."""
        if self.waiting:
            return min(self.retry_at, self.spool_at) if self.has_to_spool() else self.retry_at
        if self.experiment_id is None:
            return max(self.retry_at, self.experiment_at)
        return max(self.retry_at, self.look_at) if self.spool else None

    def has_to_spool(self) -> bool:
        """Whether traces wait in memory that belong into the spool, because the server is away."""
        if not (self.spool and self.failures):
            return False
        return any(trace.source is None and not trace.failures for trace in self.waiting)

    def needs_experiment(self) -> bool:
        """Whether the experiment that the environment names has to be known for the next step."""
        if self.experiment_id is not None:
            return False
        return not self.waiting or self.waiting[0].experiment_id is None

    def experiment_of(self, trace: EncodedTrace) -> str:
        """The experiment that a trace goes to."""
        return trace.experiment_id or str(self.experiment_id)


class Sender:
    """Empties the queue, batch by batch: the info of each trace, then the spans of all of them in one request.

    In this order a server works half as long as in the other one: it does not have to merge the info into a trace that
    it has made up from the spans (MLflow 3.17 on SQLite, batches of 256: 15 ms a trace, and 29 ms).

    Args:
        queue: Where finished traces come from.
        stats: Where it is counted what became of them.
        spool: Where they are kept while the server is away; None keeps them in memory.

    Attributes:
        may_work: Set, but while nothing may be sent.
    """

    def __init__(self, queue: TraceQueue, stats: Stats, spool: Spool | None) -> None:
        self._queue = queue
        self._stats = stats
        self._spool = spool
        self._destinations: dict[str, Destination] = {}
        self._unfinished: list[tuple[float, FinishedTrace]] = []
        self._working = threading.RLock()
        self.may_work = threading.Event()
        self.may_work.set()
        self._hurries = 0
        self._spool_logged_at = float("-inf")
        self._spool_again_at = float("-inf")

    def run(self) -> None:
        """Work for ever; the body of the thread."""
        mlflow_bridge.silence()  # this thread's own spans, if a library opens any
        pause: float | None = START_UP
        while True:
            try:
                self._round(pause)
                pause = self._pause()
                if pause is None and not self._destinations and serves(uri := mlflow_bridge.client.tracking_uri()):
                    self._destination(uri)  # a wrong address is told at start-up, not with the first request
                    pause = 0.0
            except Exception as error:  # the thread must live on: without it nothing is delivered
                report("delivery", error)
                time.sleep(MIN_BACKOFF)

    def work_until(self, deadline: float) -> None:
        """Do the thread's work here, where no thread can be started any more: while the interpreter exits."""
        while self._queue.unsettled and time.monotonic() < deadline:
            self._round(min(0.1, self._pause() or 0.1))

    def give_up(self) -> None:
        """At the end of the process: write to the spool what is left, as far as it takes it."""
        with self._working:  # free while the thread waits for a server
            self._spool_again_at = float("-inf")
            self._take_in(self._queue.take_all(), snapshot_all=True)
            for destination in self._destinations.values():
                self._to_spool(destination)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's spool files, whose locks would outlive it here."""
        for destination in self._destinations.values():
            for trace in destination.waiting:
                if trace.source:
                    trace.source.release()
        if self._spool:
            self._spool.disown()

    def send_spool(self, uri: str, tell: Callable[[int], None]) -> str:
        """Send what the spool holds, here and now.

        Args:
            uri: The tracking server.
            tell: Called with the number of traces delivered so far.

        Returns:
            What is wrong when the server does not take it; empty when all was sent that nobody else is sending.
        """
        destination = self._destination(uri)
        while destination.failures + destination.experiment_failures < PATIENCE:
            self._round(min(0.1, self._pause() or 0.0))
            tell(self._stats.delivered)
            if not destination.waiting and destination.look_at > time.monotonic():
                return ""
        return destination.problem or destination.experiment_problem

    def _round(self, pause: float | None) -> None:
        taken = self._queue.take(pause, self._hurries)
        self.may_work.wait()
        with self._working:
            self._take_in(taken)
            if self._queue.hurries != self._hurries:  # somebody waits: a pause between attempts ends here, once
                self._hurries = self._queue.hurries
                for destination in self._destinations.values():
                    destination.retry_at = destination.look_at = destination.experiment_at = 0.0
            for destination in list(self._destinations.values()):
                self._serve(destination, time.monotonic())

    def _serve(self, destination: Destination, now: float) -> None:
        if destination.has_to_spool() and now >= destination.spool_at:
            destination.spool_at = now + SPOOL_EVERY
            self._to_spool(destination)
        due = destination.due()
        if due is not None and due <= now and destination.retry_at <= now:
            self._step(destination)

    def _unlocked(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a server: whoever exits meanwhile can spool what waits."""
        self._working.release()
        try:
            return call(*args, **kwargs)
        finally:
            self._working.acquire()

    def _pause(self) -> float | None:
        """Seconds until something is to be done; None when nothing but a new trace matters."""
        times = [due for each in self._destinations.values() if (due := each.due()) is not None]
        times += [until for until, _ in self._unfinished]
        if any(each.unread and self._is_to_be_read(each) for each in self._destinations.values()):
            return 0.0
        if not times:
            return None
        pause = max(0.0, min(times) - time.monotonic())
        return min(pause, 0.25) if self._unfinished else pause

    # --- what comes in ---

    def _take_in(self, traces: Sequence[FinishedTrace], snapshot_all: bool = False) -> None:
        now = time.monotonic()
        pending, self._unfinished = [*self._unfinished, *((now + LATE_SPANS, trace) for trace in traces)], []
        wants_all = snapshot_all or self._queue.in_a_hurry
        for until, trace in pending:
            if wants_all or now >= until or trace.is_complete():
                self._destination(trace.tracking_uri).unread.append(trace)
            else:
                self._unfinished.append((until, trace))
        for destination in list(self._destinations.values()):
            self._read(destination, snapshot_all)

    def _read(self, destination: Destination, all_of_them: bool) -> None:
        """Encode what is to be sent next; the rest waits, and the app has the processor as long as it is busy."""
        began = stretch = time.monotonic()
        while destination.unread and (all_of_them or self._is_to_be_read(destination)):
            now = time.monotonic()
            if not all_of_them and now - began > MAX_TAKE_IN:
                return
            longest = MAX_STRETCH_FILLING if self._is_filling() else MAX_STRETCH
            if not (all_of_them or self._queue.in_a_hurry) and now - stretch > longest:
                time.sleep(MAX_STRETCH)
                stretch = time.monotonic()
            next_ones = fitting(destination.unread, AT_ONCE, AT_ONCE_BYTES, lambda trace: trace.size)
            if all_of_them and now - began > MAX_GIVE_UP:
                for trace in next_ones:
                    trace.forget_contents()
            _read_step_by_step(next_ones)
            for trace in next_ones:
                destination.unread.popleft()
                self._encode(destination, trace)

    def _is_to_be_read(self, destination: Destination) -> bool:
        """Whether something of what waits there has to be encoded now."""
        if len(destination.waiting) < AHEAD or destination.failures:  # then it has to be small, and goes to the spool
            return True
        return self._queue.in_a_hurry or self._is_filling()

    def _is_filling(self) -> bool:
        """Whether what waits is to be made small."""
        return self._queue.bytes > self._queue.max_bytes // 4

    def _encode(self, destination: Destination, trace: FinishedTrace) -> None:
        try:
            encoded = EncodedTrace.encode(trace)
        except Exception as error:
            logger.warning("trace %s cannot be encoded and is lost", trace.trace_id, exc_info=error)
            if not trace.supplement:
                self._stats.drop("not encodable")
            self._queue.settle(trace.size)
            return
        if destination.failures or self._is_filling():
            encoded.pack()
        self._account(encoded)
        destination.waiting.append(encoded)

    def _destination(self, uri: str) -> Destination:
        if uri not in self._destinations:
            spool = None if self._destinations else self._spool  # its files do not say for which server they are
            self._destinations[uri] = Destination(uri, sink_for(uri), spool)
            if spool:
                spool.tidy()
        return self._destinations[uri]

    # --- what goes out ---

    def _step(self, destination: Destination) -> None:
        """Do the one thing that is most needed there."""
        if destination.experiment_id is None and not destination.waiting:
            self._look_for_experiment(destination)
            return
        try:
            if destination.needs_experiment():
                destination.experiment_id = self._unlocked(resolve_experiment, destination.uri)
            self._look_into_spool(destination)
            _forget_settled(destination.waiting)
            if destination.waiting:
                self._send(destination, self._next_batch(destination))
        except (ConnectionProblem, RetryableError) as problem:
            self._back_off(destination, problem)
            self._to_spool(destination, keep=getattr(problem, "ill", False))
        except Exception as error:
            report("delivery", error)
            self._back_off(destination, RetryableError(f"sending failed ({type(error).__name__})"))
        else:
            self._recovered(destination)

    def _look_for_experiment(self, destination: Destination) -> None:
        """With nothing to send: see whether there could be."""
        try:
            destination.experiment_id = self._unlocked(resolve_experiment, destination.uri)
        except ConnectionProblem as problem:
            destination.experiment_failures += 1
            destination.experiment_at = time.monotonic() + self._pause_after(destination.experiment_failures)
            if str(problem) not in (destination.experiment_problem, destination.problem):
                destination.experiment_problem = str(problem)
                logger.warning("traces will wait: %s. Trying again, with up to %.0f s between.", problem, MAX_BACKOFF)

    def _next_batch(self, destination: Destination) -> list[EncodedTrace]:
        """The oldest traces, all of one experiment; they stay in ``waiting`` meanwhile, so that an exit finds them."""
        target = destination.waiting[0].experiment_id
        same = (trace for trace in destination.waiting if trace.experiment_id == target and not trace.settled)
        return fitting(same, destination.batch, MAX_BATCH_BYTES, lambda trace: trace.raw)

    def _send(self, destination: Destination, batch: list[EncodedTrace]) -> None:
        experiment_id = destination.experiment_of(batch[0])
        for trace in batch:
            trace.unpack()
        try:
            self._announce(destination, experiment_id, [trace for trace in batch if not trace.announced])
            if destination.sink.sends_spans_apart and (rest := [trace for trace in batch if not trace.settled]):
                self._store(destination, experiment_id, rest)
        except RetryableError:
            for trace in batch:
                trace.pack()
                self._account(trace)
            raise
        finally:
            _forget_settled(destination.waiting)
        destination.batch = min(MAX_SENT, destination.batch * 2)

    def _announce(self, destination: Destination, experiment_id: str, batch: list[EncodedTrace]) -> None:
        """Send the infos of a batch; where the sink takes no spans by themselves, the spans with them."""
        while batch:
            problem: RetryableError | None = None
            left = deque(batch)
            with closing(destination.sink.send_infos(experiment_id, batch)) as outcomes:
                while left and (outcome := self._unlocked(next, outcomes, _NOT_TRIED)) is not _NOT_TRIED:
                    trace = left.popleft()
                    if isinstance(outcome, PermanentError):
                        self._refused(trace, outcome)
                    elif isinstance(outcome, RetryableError):
                        problem = problem or outcome
                        if outcome.ill:
                            self._suspect(destination, [trace], outcome)
                    else:
                        self._announced(destination, trace)
            if problem:
                destination.batch = 1
                raise problem
            batch = [trace for trace in left if not trace.settled]

    def _announced(self, destination: Destination, trace: EncodedTrace) -> None:
        trace.announced = True
        trace.failures = 0
        destination.announced += 1
        if not destination.sink.sends_spans_apart:
            self._delivered(trace)

    def _store(self, destination: Destination, experiment_id: str, batch: list[EncodedTrace]) -> None:
        """Store the spans of a batch; one that is refused is halved until the poisonous trace stands alone."""
        try:
            self._unlocked(destination.sink.send_spans, experiment_id, batch)
        except PermanentError as error:
            if len(batch) == 1:
                if not batch[0].supplement and batch[0].source is None:  # else it may have been there before
                    self._unlocked(destination.sink.delete_info, experiment_id, batch[0])
                self._refused(batch[0], error)
                return
            half = len(batch) // 2
            self._store(destination, experiment_id, batch[:half])
            self._store(destination, experiment_id, batch[half:])
            return
        except RetryableError as problem:
            destination.batch = max(1, len(batch) // 2)
            if problem.ill:
                self._suspect(destination, batch, problem)
            raise
        destination.stored += 1
        if destination.sink.sends_spans_apart:
            for trace in batch:
                self._delivered(trace)
        else:  # it has just turned out that this server takes no spans by themselves
            for trace in batch:
                trace.announced = False

    def _suspect(self, destination: Destination, batch: list[EncodedTrace], problem: RetryableError) -> None:
        """The server failed over a batch: smaller ones will show over which trace; it comes last, and is refused in the
        end."""
        if len(batch) > 1:
            return
        (trace,) = batch
        passed = destination.stored if trace.announced else destination.announced  # where this one fails
        if not trace.failures:
            trace.passed_at_first_failure = passed
        trace.failures += 1
        if trace.failures >= PATIENCE and passed > trace.passed_at_first_failure:
            self._refused(trace, problem)
        elif trace in destination.waiting:
            destination.waiting.remove(trace)
            destination.waiting.append(trace)

    # --- how a trace ends ---

    def _settle(self, trace: EncodedTrace) -> bool:
        """Take a trace out of the queue; False when that has happened already."""
        if trace.settled:
            return False
        trace.settled = True
        if trace.source:
            if trace.source.is_own:
                self._stats.spooled -= 1
            trace.source.done(trace)
        else:
            self._queue.settle(trace.held)
        return True

    def _delivered(self, trace: EncodedTrace) -> None:
        if self._settle(trace) and not trace.supplement:
            self._stats.delivered += 1

    def _refused(self, trace: EncodedTrace, error: Exception) -> None:
        logger.warning("trace %s was refused and is lost: %s", trace.trace_id, error)
        if self._settle(trace) and not trace.supplement:
            self._stats.drop("refused by the server")

    def _account(self, trace: EncodedTrace) -> None:
        if trace.source is None and not trace.settled:
            self._queue.resize(trace.size - trace.held)
            trace.held = trace.size

    # --- how the server is doing ---

    def _back_off(self, destination: Destination, problem: ConnectionProblem | RetryableError) -> None:
        destination.failures += 1
        asked = min(MAX_RETRY_AFTER, getattr(problem, "after", None) or 0.0)
        destination.retry_at = time.monotonic() + max(asked, self._pause_after(destination.failures))
        if str(problem) not in (destination.problem, destination.experiment_problem):
            destination.problem = str(problem)
            logger.warning("traces wait: %s. Trying again, with up to %.0f s between.", problem, MAX_BACKOFF)

    def _pause_after(self, failures: int) -> float:
        longest = MIN_BACKOFF if self._queue.in_a_hurry else MAX_BACKOFF
        return min(longest, MIN_BACKOFF * 2.0 ** min(failures - 1, 10)) * _random.uniform(0.75, 1.25)

    def _recovered(self, destination: Destination) -> None:
        if destination.failures:
            destination.failures, destination.retry_at, destination.look_at = 0, 0.0, 0.0
            logger.warning("traces are sent to %s again", printable(destination.uri))
            destination.problem = ""

    # --- the spool ---

    def _look_into_spool(self, destination: Destination) -> None:
        """Load the oldest file of the spool, if it is time and there is room for its traces."""
        if destination.spool is None or time.monotonic() < destination.look_at:
            return
        if len(destination.waiting) >= MAX_FROM_SPOOL:
            return
        file = destination.spool.claim()
        if file is None:
            destination.look_at = time.monotonic() + SPOOL_LOOK
        else:
            destination.waiting.extend(file.traces)

    def _to_spool(self, destination: Destination, keep: bool = False) -> None:
        """Write what waits for a server that is away; what came from the spool goes back by being let go.

        Args:
            destination: The server.
            keep: The server is there, but ill, maybe of one of these traces: those under suspicion stay in memory,
                where it is counted how often each has failed.
        """
        if destination.spool is None:
            return
        waiting = [trace for trace in destination.waiting if not trace.settled]
        loaded = [trace for trace in waiting if trace.source]
        own = [trace for trace in waiting if trace.source is None]
        kept = [trace for trace in own if trace.failures and keep]
        if not keep:
            for file in {id(trace.source): trace.source for trace in loaded if trace.source}.values():
                file.release()
            loaded = []
        own = [trace for trace in own if not (trace.failures and keep)]
        if time.monotonic() >= self._spool_again_at:
            own = self._write(destination.spool, own)
        destination.waiting = deque([*loaded, *kept, *own])

    def _write(self, spool: Spool, traces: Iterable[EncodedTrace]) -> list[EncodedTrace]:
        """Write traces to the spool; returns those that it did not take."""
        kept: list[EncodedTrace] = []
        for _, group in groupby(sorted(traces, key=_experiment_of), key=_experiment_of):
            batch = list(group)
            while batch:
                part, batch = batch[:MAX_BATCH], batch[MAX_BATCH:]
                try:
                    spool.write(part)
                except SpoolProblem as problem:
                    self._spool_fails(problem)
                    kept += part
                    continue
                for trace in part:
                    if self._settle(trace) and not trace.supplement:
                        self._stats.spooled += 1
        return kept

    def _spool_fails(self, problem: SpoolProblem) -> None:
        self._spool_again_at = time.monotonic() + SPOOL_LOOK
        if time.monotonic() - self._spool_logged_at >= LOG_INTERVAL:
            self._spool_logged_at = time.monotonic()
            logger.warning("%s; traces wait in memory instead", problem)


def _read_step_by_step(traces: Sequence[FinishedTrace]) -> None:
    """Take each step of reading for all of them before the next one, which a processor does better: 85 us instead of
    97 to encode a trace."""
    try:
        for trace in traces:
            trace.describe()
        for trace in traces:
            trace.read_contents()
    except Exception as error:  # it will fail again when its content is asked for, and is told there
        logger.debug("a trace cannot be read", exc_info=error)


def _forget_settled(traces: deque[EncodedTrace]) -> None:
    """Take those out that have come to their end, up to the first that has not."""
    while traces and traces[0].settled:
        traces.popleft()


def _experiment_of(trace: EncodedTrace) -> str:
    return trace.experiment_id or ""
