"""The daemon thread that sends finished traces to their servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal import clock
from mlflow_middleware._internal.guard import report
from mlflow_middleware.delivery.actions import Action, ResolveExperiment, SendInfos, perform
from mlflow_middleware.delivery.backoff import MIN_BACKOFF
from mlflow_middleware.delivery.batch import PATIENCE
from mlflow_middleware.delivery.destination import Destination
from mlflow_middleware.delivery.disk import Disk, at_once
from mlflow_middleware.delivery.encoder import Encoder
from mlflow_middleware.delivery.experiment import (
    find_or_create_experiment,
    resolve_experiment,
    resolve_first_experiment,
)
from mlflow_middleware.delivery.ledger import Ledger
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.rest import chosen_uri
from mlflow_middleware.delivery.sinks import sink_for
from mlflow_middleware.delivery.spool import Spool
from mlflow_middleware.delivery.spooling import Spooling
from mlflow_middleware.delivery.stats import Stats

START_UP = 0.5
"""Seconds after its start that the sender contacts the server, unless a trace comes first: until then the app may
choose another server."""

OPEN_LOOK = 0.25
"""Seconds between two checks whether a trace with open spans is complete."""

STUCK_ENCODING = 1.0
"""Seconds past its deadline that an exit waits for a trace that is being encoded; the remaining traces are lost."""

SHORT_PAUSE = 0.1
"""Maximum number of seconds between two rounds while someone waits for the end."""


class Sender:
    """Sender of queued traces: it encodes them and sends those of each destination to its server, batch by batch.

    All state changes under one lock. It is not held during a call to a server, so that an exit in the meantime finds
    every pending trace.

    Args:
        queue: The queue of finished traces.
        stats: Counts the result of each trace.
        spool: Keeps traces while the server is unreachable; None keeps them in memory.

    Attributes:
        is_paused: Whether nothing may be sent at present.
        is_hopeless: Whether no pending trace can be expected to be delivered soon.
        encoder: Holds the traces that are not encoded yet.
        destinations: The destinations of the encoded traces, by tracking URI.
    """

    first_uri = staticmethod(chosen_uri)  # the server to contact before there is a trace

    def __init__(self, queue: TraceQueue, stats: Stats, spool: Spool | None) -> None:
        self.is_paused = self.is_hopeless = False
        self._hurries: list[bool] = []
        self._queue, self._stats, self._spool = queue, stats, spool
        self._ledger = Ledger(queue, stats)
        self.encoder = Encoder(self._ledger)
        self.destinations: dict[str, Destination] = {}
        self._flushes = 0
        self._disk = Disk(self._look)
        self._run_on_disk = self._disk.run
        self._lock = threading.RLock()  # a signal handler may exit while this thread holds it

    def run(self) -> None:
        """Run forever, as the body of the thread."""
        self._lock = threading.RLock()  # of this thread's kind, even if threading has been patched since
        mlflow_bridge.silence_thread()
        pause: float | None = START_UP
        while True:
            try:
                self._round(pause)
                pause = self._pause()
                if pause is None and not self.destinations and (uri := self.first_uri()):
                    with self._lock:
                        self._destination(uri)  # a wrong address is reported at start-up, not with the first request
                    pause = 0.0
            except Exception as error:  # the thread must survive: without it nothing is delivered
                report("delivery", error)
                time.sleep(MIN_BACKOFF)

    def work_until(self, deadline: float) -> None:
        """Do the thread's work in this thread, for an exiting interpreter that starts no more threads."""
        while self._queue.pending and clock.monotonic() < deadline and not self.is_hopeless:
            self._round(min(SHORT_PAUSE, self._pause() or SHORT_PAUSE))

    @contextmanager
    def in_a_hurry(self) -> Iterator[bool]:
        """While someone waits with a deadline, send the spans of all pending traces before any info.

        Yields:
            Whether the servers are known to be unreachable.
        """
        is_unreachable = self.is_unreachable()
        for destination in list(self.destinations.values()):
            destination.health.hurry()
        self.is_hopeless = False
        self._hurries.append(True)  # without the lock: the app's own ``mask`` may block the sender forever
        try:
            yield is_unreachable
        finally:
            self._hurries.pop()

    def is_unreachable(self) -> bool:
        """Return whether every known server is unreachable."""
        known = list(self.destinations.values())
        return bool(known) and all(each.health.is_unreachable for each in known)

    def give_up(self, deadline: float = 0.0, *, last: bool = False) -> None:
        """Spool the remaining traces when the time is over, as far as the spool takes them by then or soon after.

        Args:
            deadline: The deadline of the exit.
            last: Whether the process ends, so that the remaining traces are lost.
        """
        lock = self._lock
        if not lock.acquire(timeout=max(0.0, deadline - clock.monotonic()) + STUCK_ENCODING):
            return
        try:
            self._take(everything=True)
            for destination in self.destinations.values():
                destination.give_up(clock.monotonic())
        finally:
            lock.release()
        self._disk.wait(max(deadline, clock.monotonic()))
        with self._lock:
            for destination in self.destinations.values():
                self._ledger.settle(destination.pending, last=last)

    def abandon(self) -> None:
        """Release the parent's spool files in a forked child."""
        for destination in self.destinations.values():
            destination.abandon()
        if self._spool:
            self._spool.disown()

    def send_spool(self, uri: str, report: Callable[[int], None]) -> str:
        """Send the spooled traces in the current thread.

        Args:
            uri: The tracking server.
            report: Called with the number of traces delivered so far.

        Returns:
            The problem if the server does not accept them; empty if all were sent, except those that another process is
            sending.
        """
        self._run_on_disk = at_once  # this thread has nothing else to do
        destination = self._destination(uri)
        while destination.health.server.failures + destination.health.experiment.failures < PATIENCE:
            self._round(min(SHORT_PAUSE, self._pause() or 0.0))
            report(self._stats.delivered)
            if destination.is_idle(clock.monotonic()):
                return ""
        return destination.health.server.problem or destination.health.experiment.problem

    def _round(self, pause: float | None) -> None:
        """Wait for traces, or until an action is due; then do one action for each destination."""
        has_batch = self._queue.wait(pause, self._flushes)
        while self.is_paused:
            time.sleep(SHORT_PAUSE)
        with self._lock:
            self._take(from_queue=has_batch)
            if self._queue.flushes != self._flushes:  # someone waits: pauses between attempts end here, once
                self._flushes = self._queue.flushes
                for destination in self.destinations.values():
                    destination.wake()
            destinations = list(self.destinations.values())
        for destination in destinations:
            self._serve(destination)

    def _take(self, *, from_queue: bool = True, everything: bool = False) -> None:
        """Take the queued traces, and encode those to be sent next."""
        for uri in self.encoder.take(self._queue.take() if from_queue else [], everything=everything):
            self.encoder.encode_for(self._destination(uri), everything=everything)

    def _serve(self, destination: Destination) -> None:
        """Do the most urgent action of a destination; a whole batch counts as one."""
        try:
            while action := self._planned(destination):
                answers = perform(action, destination.sink, partial(_resolve, action, destination.uri))
                for answer in answers:
                    with self._lock:
                        destination.answered(action, answer, clock.monotonic())
                    if self._hurries and isinstance(action, SendInfos) and destination.owes_spans():
                        answers.close()  # the infos were requested before the deadline was set
                        break
                with self._lock:
                    destination.done(clock.monotonic())
                    self._see_hope()
                if not destination.is_sending:
                    return
        except Exception as error:
            report("delivery", error)
            with self._lock:
                destination.failed(error, clock.monotonic())

    def _planned(self, destination: Destination) -> Action | None:
        with self._lock:
            return destination.plan(clock.monotonic(), in_a_hurry=bool(self._hurries))

    def _see_hope(self) -> None:
        concerned = [each for each in self.destinations.values() if each.pending]
        self.is_hopeless = bool(concerned) and all(each.health.is_hopeless for each in concerned)

    def _look(self) -> None:
        """Spool pending traces during the sender's own call to a server that does not respond."""
        with self._lock:
            troubled = [each for each in self.destinations.values() if each.look(clock.monotonic())]
            if troubled:
                self._take()
            for destination in troubled:
                destination.rescue(clock.monotonic())

    def _pause(self) -> float | None:
        """Return the seconds until the next action; None if only a new trace matters."""
        with self._lock:
            if any(map(self.encoder.has_work, self.destinations.values())):
                return 0.0
            times = [due for each in self.destinations.values() if (due := each.due()) is not None]
            open_until = self.encoder.waits_until()
        if open_until is not None:
            times += [open_until, clock.monotonic() + OPEN_LOOK]
        return max(0.0, min(times) - clock.monotonic()) if times else None

    def _destination(self, uri: str) -> Destination:
        if uri not in self.destinations:
            spool = None if self.destinations else self._spool  # its files do not contain their server
            spooling = Spooling(spool, self._ledger, self._run_on_disk, self._lock) if spool else None
            self.destinations[uri] = Destination(uri, sink_for(uri), self._ledger, spooling)
            if spool:
                self._run_on_disk(spool.tidy)
        return self.destinations[uri]


def _resolve(action: Action, uri: str) -> str:
    """Find the experiment of traces that specify one or none, or of traces to come."""
    if isinstance(action, ResolveExperiment) and action.name:
        return find_or_create_experiment(uri, action.name)
    is_needed = isinstance(action, ResolveExperiment) and action.is_needed
    return (resolve_first_experiment if is_needed else resolve_experiment)(uri)
