"""The current state of delivery: pending traces, their age, and the servers' health. Any thread may ask for it.

Nothing here waits for a lock: the sender may hold its lock while the app's ``mask`` is slow.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from mlflow_middleware._internal import clock
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.queue import TraceQueue
from mlflow_middleware.delivery.stats import Stats

if TYPE_CHECKING:
    from mlflow_middleware.delivery.process import Delivery
    from mlflow_middleware.delivery.sender import Sender


def standing(stats: Stats, queue: TraceQueue, sender: Sender, rejected: int) -> Stats:
    """Return the counts, completed by the state of queue and servers, without access to the disk.

    Args:
        stats: The counts.
        queue: The queue of pending traces.
        sender: The sender with its destinations.
        rejected: Number of traces that found the queue full.
    """
    destinations = list(sender.destinations.values())
    return replace(
        stats,
        waiting=queue.pending,
        dropped={**stats.dropped, **({"queue full": rejected} if rejected else {})},
        left_out=dict(stats.left_out),
        failures=dict(sum((each.health.failures for each in destinations), Counter())),
        is_failing=any(each.health.is_failing for each in destinations),
        oldest_waiting=_age(queue, sender),
        queue_bytes=queue.bytes,
        max_queue_bytes=queue.max_bytes,
    )


def with_spool(delivery: Delivery) -> Stats:
    """Return the complete state, including the size of the spools."""
    stats = _measured(delivery.stats(), delivery)
    copies = getattr(delivery, "copies", None)
    return replace(stats, collector=_measured(stats.collector, copies)) if copies and stats.collector else stats


def _measured(stats: Stats, delivery: Delivery) -> Stats:
    if delivery.spool is None:
        return stats
    held, written_at = delivery.spool.measure()
    age = max(0.0, time.time() - written_at) if written_at else 0.0
    oldest = max(stats.oldest_waiting, age)
    return replace(stats, spool_bytes=held, max_spool_bytes=delivery.spool.max_bytes, oldest_waiting=oldest)


def _age(queue: TraceQueue, sender: Sender) -> float:
    """Return the age of the oldest trace in memory; those from the spool are as old as their files."""
    encoded = (each for destination in list(sender.destinations.values()) for each in _copied(destination.pending))
    times = [queue.waits_since, sender.encoder.waits_since()]
    times += [trace.since for trace in encoded if not (trace.ended or trace.source)]
    since = min(filter(None, times), default=None)
    return max(0.0, clock.monotonic() - since) if since else 0.0


def _copied(traces: Iterable[EncodedTrace]) -> list[EncodedTrace]:
    """Copy a collection that the sender may change meanwhile; changes are so short that a retry soon succeeds."""
    while True:
        try:
            return list(traces)
        except RuntimeError:
            continue
