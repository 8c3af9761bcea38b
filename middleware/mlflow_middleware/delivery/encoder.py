"""The encoder of traces: complete traces first, and only slightly ahead of sending."""

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
"""Seconds that a trace waits for spans that end after its root; spans that end even later are added afterwards."""

MAX_ENCODING = 0.25
"""Seconds of encoding after which the encoded traces are sent, so that an exit waits no longer for them."""

MAX_GIVE_UP = 0.25
"""Seconds after an exit's deadline in which bodies are still encoded; the other traces are spooled without bodies."""

AHEAD = 128
"""Maximum number of encoded traces that wait for a server. More are encoded as these are sent, so that an app with more
requests than the server can take keeps the whole processor."""

MAX_STRETCH = 0.0005
"""Seconds of encoding after which the encoder pauses as long for the app's threads. The interpreter would switch after
5 ms, which a request would have to wait."""

MAX_STRETCH_FILLING = 0.005
"""`MAX_STRETCH` while the queue fills up: encoded traces are compressed, and take a third of the memory."""


class Encoder:
    """Holds finished traces until it is their turn to be encoded.

    Args:
        ledger: Counts traces that cannot be encoded.
        clock: Returns the time in seconds.
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
        """Accept finished traces; a trace with open spans waits for them, unless someone flushes.

        Args:
            traces: The new traces.
            everything: Whether not to wait for open spans.

        Returns:
            The tracking URIs that have complete traces.
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
        """Return the time when the first trace stops waiting for its open spans; None if no trace waits."""
        return min((until for until, _ in self._incomplete), default=None)

    def waits_since(self) -> float | None:
        """Return when the oldest unencoded trace was queued; None if there is none. Any thread may call this."""
        firsts = [trace for complete in list(self._complete.values()) for trace in islice(complete, 1)]
        waiting = [*firsts, *(trace for _, trace in list(self._incomplete))]
        return min((trace.since for trace in waiting), default=None)

    def has_work(self, destination: Destination) -> bool:
        """Return whether a trace for a destination is due to be encoded."""
        return bool(self._complete[destination.uri]) and self._has_room(destination)

    def encode_for(self, destination: Destination, *, everything: bool = False) -> None:
        """Encode the traces to be sent next; the others wait, so that a busy app keeps the processor.

        Args:
            destination: The destination where the encoded traces become pending.
            everything: Whether the process ends: then encode all traces, without bodies if it takes too long.
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
        if len(destination.pending) < AHEAD or destination.health.is_in_trouble:  # compressed, then spooled
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
        """Split off a caller's trace info: the spans are sent now, the info only if the caller sends none."""
        info = parted(encoded)
        self._queue.split()
        self._ledger.resize(info)
        self._incomplete.append((self._clock() + WAIT, LaterInfo(destination.uri, info)))
