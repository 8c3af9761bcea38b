"""A trace in its encoded form: small, and with everything that is needed to send it again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_middleware.delivery.cutting import cut, cut_info, without_assessments
from mlflow_middleware.trace.record import CONTINUED

if TYPE_CHECKING:
    from mlflow_middleware.delivery.spool import SpoolFile
    from mlflow_middleware.mlflow_bridge import PendingTrace
    from mlflow_middleware.mlflow_bridge.assessments import Assessed

PENDING_EXPERIMENT = "mlflow-middleware-pending-experiment"
"""Placeholder for the experiment's id in a trace info until the id is known."""

_ADDITION = f'"{CONTINUED}"'.encode()

_OVERHEAD = 600
"""Approximate size of the objects around a pending trace, in bytes."""


def is_name(experiment: str | None) -> bool:
    """Return whether an experiment is given by its name: ids consist of digits."""
    return experiment is not None and not experiment.isdecimal()


@dataclass(slots=True, eq=False)
class EncodedTrace:
    """An encoded trace and the state of its delivery.

    Attributes:
        trace_id: MLflow's trace id.
        experiment_id: The experiment's id or name; None for the experiment that the environment specifies.
        otlp: The spans as an OTLP request.
        info: The trace info, as the body of ``POST /api/3.0/mlflow/traces``.
        prompts: Name and version of each linked prompt.
        attachments: Files extracted from the inputs and outputs, by id.
        supplement: Whether the trace was delivered before and is sent again with spans that ended late.
        has_late_spans: Whether a span ended after the root.
        source: The spool file that it was read from; None if it was not.
        held: Size that it counts for in the queue, in bytes.
        raw: Size of spans and info before `pack`, in bytes.
        has_info: Whether the server has the info.
        has_spans: Whether the server has the spans.
        ended: Whether it has ended: delivered, spooled or dropped.
        failures: Number of the server's failures when it was sent alone.
        passed_at_first_failure: Number of requests that had succeeded before the first of these failures.
        assessments: Number of the trace's assessments, including those that were sent before.
        assessed: Counts those that the server has.
        since: Time when it was queued, by the monotonic clock; 0 if unknown.
        is_addition: Whether it consists of spans for a stored trace, whose info is not sent.
    """

    trace_id: str
    experiment_id: str | None
    otlp: bytes
    info: bytes
    prompts: Sequence[tuple[str, str]] = ()
    attachments: dict[str, bytes] = field(default_factory=dict)
    supplement: bool = False
    has_late_spans: bool = False
    source: SpoolFile | None = None
    held: int = 0
    raw: int = 0
    has_info: bool = False
    has_spans: bool = False
    ended: bool = False
    failures: int = 0
    passed_at_first_failure: int = 0
    assessments: int = 0
    assessed: Assessed | None = None
    since: float = 0.0
    is_addition: bool = False
    _packed: bool = False

    @classmethod
    def encode(cls, trace: PendingTrace) -> EncodedTrace:
        """Encode a finished trace."""
        known = trace.experiment_id
        content = trace.content(PENDING_EXPERIMENT if known is None or is_name(known) else known)
        return cls(
            trace.trace_id,
            trace.experiment_id,
            content.otlp,
            content.info,
            content.prompts,
            content.attachments,
            supplement=trace.supplement,
            has_late_spans=content.has_late_spans,
            held=trace.size,
            assessments=content.assessed,
            assessed=trace.assessed,
            since=trace.since,
        )

    def __post_init__(self) -> None:
        self.raw = len(self.otlp) + len(self.info)
        if _ADDITION in self.info:
            self.is_addition = self.has_info = self.supplement = True
            self.has_late_spans = False

    @property
    def size(self) -> int:
        """Approximate current size, in bytes."""
        return len(self.otlp) + len(self.info) + sum(map(len, self.attachments.values())) + _OVERHEAD

    def pack(self) -> None:
        """Compress a trace that has to wait."""
        if not self._packed:
            self.otlp = zlib.compress(self.otlp, 1)
            self.info = zlib.compress(self.info, 1)
            self._packed = True

    def unpack(self) -> None:
        """Undo `pack` before the trace is sent."""
        if self._packed:
            self.otlp, self.info = self.plain()
            self._packed = False

    def cut(self) -> bool:
        """Truncate the largest inputs and outputs; return False if nothing is left to truncate."""
        smaller = cut(self.otlp)
        if smaller is not None:
            self.otlp = smaller
            self.raw = len(self.otlp) + len(self.info)
        return smaller is not None

    def cut_info(self) -> bool:
        """Truncate the largest texts of the info; return False if nothing is left to truncate."""
        smaller = cut_info(self.info)
        if smaller is not None:
            self.info = smaller
            self.raw = len(self.otlp) + len(self.info)
        return smaller is not None

    def info_is_stored(self) -> None:
        """Record that the server has the info; drop the assessments, since sending them again would duplicate them."""
        self.has_info = True
        if self.assessed:
            self.assessed.stored = max(self.assessed.stored, self.assessments)
        if not self._packed:
            self.info = without_assessments(self.info)

    def plain(self) -> tuple[bytes, bytes]:
        """Return the uncompressed spans and info."""
        if not self._packed:
            return self.otlp, self.info
        return zlib.decompress(self.otlp), zlib.decompress(self.info)

    def info_for(self, experiment_id: str) -> bytes:
        """Return the trace info with the experiment's id filled in."""
        return self.info.replace(PENDING_EXPERIMENT.encode(), experiment_id.encode())
