"""What is encoded, and when: complete traces first, never many ahead of what is sent."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from mlflow_middleware._internal import clock
from mlflow_middleware.delivery.destination import Destination
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.joined import WAIT, LaterInfo, is_joined, parted
from mlflow_middleware.delivery.ledger import Ledger

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge import PendingTrace

LATE_SPANS = 3.0
"""Seconds that a trace waits for spans that end after its root; later ones are added when they end."""

MAX_ENCODING = 0.25
"""Seconds of encoding after which what is encoded is sent; an exit waits no longer for that."""

MAX_GIVE_UP = 0.25
"""Seconds of an exit, when its time is over, in which bodies are still read; what is left is spooled without them."""

AHEAD = 128
"""Traces that wait for a server encoded. More are encoded as these are sent: while an app has more requests than the
server can take, all of the processor is the app's."""

MAX_STRETCH = 0.0005
"""Seconds of encoding after which the app's threads are let in, for as long: the interpreter would do that after 5 ms,
which is what a request would wait."""

MAX_STRETCH_FILLING = 0.005
"""Those seconds while the queue fills up: what is encoded is packed, and takes a third of the room."""


class Encoder:
    """Holds finished traces until it is their turn to be encoded.

    Args:
        ledger: Counts what cannot be encoded.
        clock: Tells the time in seconds.
        sleep: Lets other threads run.
    """

    def __init__(
        self, ledger: Ledger, clock: Callable[[], float] = clock.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._ledger = ledger
        self._queue = ledger.queue
        self._clock = clock
        self._sleep = sleep
        self._incomplete: list[tuple[float, PendingTrace | LaterInfo]] = []
        self._complete: defaultdict[str, deque[PendingTrace | LaterInfo]] = defaultdict(deque)

    def take(self, traces: Iterable[PendingTrace], *, everything: bool = False) -> list[str]:
        """Take finished traces; one with open spans waits for them, unless somebody flushes.

        Args:
            traces: Those that have come.
            everything: Do not wait for open spans.

        Returns:
            The tracking URIs that traces are complete for.
        """
        now = self._clock()
        waiting, self._incomplete = [*self._incomplete, *((now + LATE_SPANS, trace) for trace in traces)], []
        wants_all = everything or self._queue.is_flushing
        for until, trace in waiting:
            if wants_all or now >= until or trace.is_complete():
                self._complete[trace.tracking_uri].append(trace)
            else:
                self._incomplete.append((until, trace))
        return [uri for uri, complete in self._complete.items() if complete]

    def waits_until(self) -> float | None:
        """When the first trace stops to wait for its open spans; None if none does."""
        return min((until for until, _ in self._incomplete), default=None)

    def waits_since(self) -> float | None:
        """When the oldest trace came that is not encoded; None if there is none. Asked by any thread."""
        firsts = [trace for complete in list(self._complete.values()) for trace in islice(complete, 1)]
        waiting = [*firsts, *(trace for _, trace in list(self._incomplete))]
        return min((trace.since for trace in waiting), default=None)

    def has_work(self, destination: Destination) -> bool:
        """Whether a trace for it is to be encoded now."""
        return bool(self._complete[destination.uri]) and self._has_room(destination)

    def encode_for(self, destination: Destination, *, everything: bool = False) -> None:
        """Encode what is to be sent next; the rest waits, and the app has the processor as long as it is busy.

        Args:
            destination: Where the encoded traces become pending.
            everything: The process ends: encode all, without their bodies when it takes too long.
        """
        complete = self._complete[destination.uri]
        began = stretch = self._clock()
        while complete and (everything or self._has_room(destination)):
            now = self._clock()
            if not everything:
                if now - began > MAX_ENCODING:
                    return
                if not self._queue.is_flushing and now - stretch > self._longest_stretch():
                    self._sleep(MAX_STRETCH)
                    stretch = self._clock()
            trace = complete.popleft()
            if everything and now - began > MAX_GIVE_UP:
                trace.forget_contents()
            if isinstance(trace, LaterInfo):
                destination.pending.append(trace.encoded)
            else:
                self._encode(destination, trace, everything=everything)

    def _has_room(self, destination: Destination) -> bool:
        if len(destination.pending) < AHEAD or destination.health.is_in_trouble:  # it has to be small, and is spooled
            return True
        return self._queue.is_flushing or self._queue.is_filling

    def _longest_stretch(self) -> float:
        return MAX_STRETCH_FILLING if self._queue.is_filling else MAX_STRETCH

    def _encode(self, destination: Destination, trace: PendingTrace, *, everything: bool) -> None:
        try:
            encoded = EncodedTrace.encode(trace)
        except Exception as error:
            self._ledger.not_encodable(trace, error)
            return
        if is_joined(encoded) and destination.sink.sends_spans_apart and not (everything or self._queue.is_flushing):
            self._send_info_later(destination, encoded)
        if destination.health.is_in_trouble or self._queue.is_filling:
            encoded.pack()
        self._ledger.resize(encoded)
        destination.pending.append(encoded)

    def _send_info_later(self, destination: Destination, encoded: EncodedTrace) -> None:
        """Part a caller's trace: its spans go now, what else is known of it only if the caller tells nothing."""
        info = parted(encoded)
        self._queue.split()
        self._ledger.resize(info)
        self._incomplete.append((self._clock() + WAIT, LaterInfo(destination.uri, info)))
