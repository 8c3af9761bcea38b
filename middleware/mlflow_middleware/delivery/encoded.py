"""A trace as it goes over the wire: small, and all that is needed to send it again."""

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
"""Stands in a trace info for the experiment's id until that is known."""

_ADDITION = f'"{CONTINUED}"'.encode()

_OVERHEAD = 600
"""Bytes that the objects around a waiting trace take, about."""


def is_name(experiment: str | None) -> bool:
    """Whether an experiment is given by its name: ids have digits only."""
    return experiment is not None and not experiment.isdecimal()


@dataclass(slots=True, eq=False)
class EncodedTrace:
    """A trace, encoded.

    Attributes:
        trace_id: MLflow's trace id.
        experiment_id: Where it goes, an id or a name; None for the experiment that the environment names.
        otlp: Its spans as an OTLP request.
        info: Its trace info, as the body of ``POST /api/3.0/mlflow/traces``.
        prompts: Name and version of each prompt linked to it.
        attachments: Files taken out of its inputs and outputs, by their ids.
        supplement: Whether it was delivered before, and now comes again with spans that ended late.
        has_late_spans: Whether one of its spans ended after its root.
        source: The spool file that it was read from.
        held: Bytes that it counts for in the queue.
        raw: Bytes of spans and info, before `pack`.
        has_info: Whether the server has its info.
        has_spans: Whether the server has its spans.
        ended: Whether it has come to its end: delivered, spooled or dropped.
        failures: How often the server failed over it, while it was sent alone.
        passed_at_first_failure: How many others had passed at the first of these failures.
        assessments: How many assessments its trace had, those that were sent before included.
        assessed: How many of them the server has.
        since: When it came, by the monotonic clock; 0 if that is unknown.
        is_addition: Whether these are spans for a trace that is stored, with an info that is not to be sent.
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
        """Bytes that it takes now, about."""
        return len(self.otlp) + len(self.info) + sum(map(len, self.attachments.values())) + _OVERHEAD

    def pack(self) -> None:
        """Make it small; for one that has to wait."""
        if not self._packed:
            self.otlp = zlib.compress(self.otlp, 1)
            self.info = zlib.compress(self.info, 1)
            self._packed = True

    def unpack(self) -> None:
        """Undo `pack`, before it is sent."""
        if self._packed:
            self.otlp, self.info = self.plain()
            self._packed = False

    def cut(self) -> bool:
        """Do without its largest inputs and outputs; False if that is all that it can do without."""
        smaller = cut(self.otlp)
        if smaller is not None:
            self.otlp = smaller
            self.raw = len(self.otlp) + len(self.info)
        return smaller is not None

    def cut_info(self) -> bool:
        """Do without the largest texts of its info; False if there are none."""
        smaller = cut_info(self.info)
        if smaller is not None:
            self.info = smaller
            self.raw = len(self.otlp) + len(self.info)
        return smaller is not None

    def info_is_stored(self) -> None:
        """The server has the info: where it is sent again, its assessments would be created anew."""
        self.has_info = True
        if self.assessed:
            self.assessed.stored = max(self.assessed.stored, self.assessments)
        if not self._packed:
            self.info = without_assessments(self.info)

    def plain(self) -> tuple[bytes, bytes]:
        """Spans and info as they are sent, whether packed or not."""
        if not self._packed:
            return self.otlp, self.info
        return zlib.decompress(self.otlp), zlib.decompress(self.info)

    def info_for(self, experiment_id: str) -> bytes:
        """The trace info, with the experiment in place."""
        return self.info.replace(PENDING_EXPERIMENT.encode(), experiment_id.encode())
