"""What became of every trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Stats:
    """Counts of traces in this process; every finished trace is in exactly one of them."""

    delivered: int = 0
    """Stored by the server, also those taken over from the spool of an earlier process."""

    spooled: int = 0
    """Written to the spool by this process, and not delivered since."""

    waiting: int = 0
    """Finished, in memory, and not delivered yet."""

    sampled_out: int = 0
    """Not kept, as ``sample_ratio`` says; also in ``left_out``."""

    left_out: dict[str, int] = field(default_factory=dict)
    """Requests that have no trace because nobody wants it, by reason: ``excluded`` (by a path of ``exclude``),
    ``preflight``, ``head``, ``docs``, ``unrouted``, ``not_genai``, ``sampled_out``, ``dropped_by_app``."""

    dropped: dict[str, int] = field(default_factory=dict)
    """Lost, by reason: ``queue full``, ``refused by the server``, ``not encodable``, ``not delivered before the exit``.
    """

    failures: dict[str, int] = field(default_factory=dict, compare=False)
    """Attempts to reach the server that have failed, by reason: ``no connection``, the ``status`` of its answer,
    ``experiment``, ``error``. Nothing is lost by one."""

    is_failing: bool = field(default=False, compare=False)
    """Whether the last attempt has failed."""

    last_delivered_at: float | None = field(default=None, compare=False)
    """When the last trace was stored, in seconds since the epoch; None for never."""

    oldest_waiting: float = field(default=0.0, compare=False)
    """Seconds since the oldest trace that is not delivered came, in memory or in the spool; 0 if there is none."""

    queue_bytes: int = field(default=0, compare=False)
    """Memory of this process that waiting traces take, about; ``max_queue_bytes`` is its bound."""

    max_queue_bytes: int = field(default=0, compare=False)
    """See `queue_bytes`."""

    spool_bytes: int = field(default=0, compare=False)
    """What the spool's files take, those of all processes; ``max_spool_bytes`` is its bound."""

    max_spool_bytes: int = field(default=0, compare=False)
    """See `spool_bytes`; 0 where there is no spool."""

    where: str = ""
    """``collector`` for what an OTLP collector gets; empty for what an MLflow server gets."""

    collector: Stats | None = None
    """What became of the copies that an OTLP collector gets besides the MLflow server, if one does."""

    def leave_out(self, reason: str) -> None:
        """Count a trace that nobody wants."""
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
