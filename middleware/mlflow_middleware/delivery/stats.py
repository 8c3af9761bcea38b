"""The counts of traces by their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Stats:
    """Counts of traces in this process; every finished trace is in exactly one of them."""

    delivered: int = 0
    """Stored by the server, including traces from the spool of an earlier process."""

    spooled: int = 0
    """Written to the spool by this process and not delivered since."""

    waiting: int = 0
    """Finished, in memory and not delivered yet."""

    sampled_out: int = 0
    """Not kept because of ``sample_ratio``; also in ``left_out``."""

    left_out: dict[str, int] = field(default_factory=dict)
    """Requests whose trace is not wanted, by reason: ``excluded`` (by a path of ``exclude``),
    ``preflight``, ``head``, ``docs``, ``unrouted``, ``not_genai``, ``sampled_out``, ``dropped_by_app``."""

    dropped: dict[str, int] = field(default_factory=dict)
    """Lost, by reason: ``queue full``, ``refused by the server``, ``not encodable``, ``not delivered before the exit``.
    """

    failures: dict[str, int] = field(default_factory=dict, compare=False)
    """Failed attempts to reach the server, by reason: ``no connection``, the ``status`` of the response,
    ``experiment``, ``error``. A failed attempt loses no trace."""

    is_failing: bool = field(default=False, compare=False)
    """Whether the last attempt has failed."""

    last_delivered_at: float | None = field(default=None, compare=False)
    """When the last trace was stored, in seconds since the epoch; None for never."""

    oldest_waiting: float = field(default=0.0, compare=False)
    """Age of the oldest undelivered trace, in memory or in the spool, in seconds; 0 if there is none."""

    queue_bytes: int = field(default=0, compare=False)
    """Approximate size of this process's pending traces, in bytes; ``max_queue_bytes`` is its limit."""

    max_queue_bytes: int = field(default=0, compare=False)
    """See `queue_bytes`."""

    spool_bytes: int = field(default=0, compare=False)
    """Size of the spool's files of all processes, in bytes; ``max_spool_bytes`` is its limit."""

    max_spool_bytes: int = field(default=0, compare=False)
    """See `spool_bytes`; 0 without a spool."""

    where: str = ""
    """``collector`` for traces to an OTLP collector; empty for traces to an MLflow server."""

    collector: Stats | None = None
    """Counts of the copies to an OTLP collector in addition to the MLflow server; None if there is no collector."""

    def leave_out(self, reason: str) -> None:
        """Count a request whose trace is not wanted."""
        self.left_out.setdefault(reason, 0)
        self.left_out[reason] += 1  # one step, as requests of many threads come here at once
        if reason == "sampled_out":
            self.sampled_out += 1

    def drop(self, reason: str, count: int = 1) -> None:
        """Count traces as lost."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def __str__(self) -> str:
        text = f"{self.where}: " if self.where else ""
        text += f"{self.delivered} delivered, {self.spooled} spooled, {self.waiting} waiting"
        text += f", {self.sampled_out} sampled out" if self.sampled_out else ""
        others = {reason: count for reason, count in self.left_out.items() if reason != "sampled_out"}
        if others:
            text += f", {sum(others.values())} left out ({_listed(others)})"
        return f"{text}, {sum(self.dropped.values())} dropped" + (f" ({_listed(self.dropped)})" if self.dropped else "")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.items())
