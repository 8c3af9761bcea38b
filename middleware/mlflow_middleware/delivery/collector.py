"""Delivery to an OTLP collector: of copies, in addition to an MLflow server, or instead of one.

A collector has its own queue, thread and counts, so that the MLflow server gets its traces while the collector is
unreachable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlflow_middleware._internal import clock
from mlflow_middleware.delivery.otlp_variables import collector, named_collector
from mlflow_middleware.delivery.process import Delivery
from mlflow_middleware.delivery.rest import printable
from mlflow_middleware.delivery.sender import Sender
from mlflow_middleware.delivery.stats import Stats

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge import PendingTrace
    from mlflow_middleware.mlflow_bridge.encode import Encoding

SHARE = 0.25
"""The collector's share of queue, spool and exit time if an MLflow server gets the traces, too."""

FOLDER = "collector"
"""The folder inside the spool for traces that wait for the collector."""

_OVERHEAD = 600
"""Approximate size of a copy's objects, in bytes."""


logger = logging.getLogger("mlflow_middleware.delivery")


def delivery_type(wanted: str) -> type[Delivery]:
    """Return the class for the option ``delivery`` and OpenTelemetry's variables; log the consequences."""
    if wanted == "otlp":
        if problem := collector().problem:
            logger.warning("traces cannot be sent yet: %s", problem)
        return ToCollector
    named = named_collector() if wanted == "auto" else None
    if named is None:
        return Delivery
    if named.problem:
        logger.warning("no copies go to the OTLP collector, traces go to the MLflow server only: %s", named.problem)
        return Delivery
    logger.warning(
        "each trace goes to the MLflow server, and a copy to an OTLP collector; for the collector only, set "
        "MLFLOW_MIDDLEWARE_DELIVERY=otlp, for the MLflow server only, MLFLOW_ENABLE_OTLP_EXPORTER=false: %s is set, "
        "to %s",
        named.variable,
        printable(named.url),
    )
    return WithCollector


class CollectorSender(Sender):
    """Sender that only knows the collector."""

    first_uri = staticmethod(lambda: collector().uri)


class ToCollector(Delivery):
    """Delivery to a collector instead of an MLflow server."""

    sender_type = CollectorSender

    def put(self, trace: PendingTrace) -> None:
        """See `Delivery`."""
        trace.tracking_uri = collector().uri
        super().put(trace)

    def stats(self) -> Stats:
        """See `Delivery`."""
        return replace(super().stats(), where="collector")


class Copy:
    """A trace that has been encoded for another server and is queued for the collector.

    Args:
        trace_id: MLflow's trace id.
        encoding: The encoded trace.
        supplement: Whether the trace was delivered before.

    Attributes:
        trace_id: MLflow's trace id.
        supplement: Whether the trace was delivered before.
        size: Approximate size, in bytes.
        tracking_uri: Its destination.
        experiment_id: None, since collectors have no experiments.
        assessed: None, since collectors take no assessments.
    """

    tracking_uri = ""
    experiment_id: str | None = None
    assessed = None

    def __init__(self, trace_id: str, encoding: Encoding, supplement: bool) -> None:
        self.trace_id = trace_id
        self.supplement = supplement
        self.since = 0.0  # set by the queue
        self.size = len(encoding.otlp) + len(encoding.info) + _OVERHEAD
        self._encoding = type(encoding)(encoding.otlp, encoding.info, (), {}, encoding.has_late_spans)

    def is_complete(self) -> bool:
        """Return True: nothing more will come."""
        return True

    def forget_contents(self) -> None:
        """Do nothing: the trace is already encoded."""

    def content(self, experiment_id: str) -> Encoding:
        """Return the encoded trace, without the parts that a collector does not take."""
        return self._encoding


class WithCollector(Delivery):
    """Delivery to an MLflow server, and of a copy of each trace to a collector.

    Args:
        max_queue_bytes: Maximum size of all pending traces, in bytes.
        shutdown_timeout: Maximum number of seconds for an exit.
        spool_dir: Directory for traces while a server is unreachable; None keeps them in memory.
        max_spool_bytes: Maximum size of the spool, in bytes.
        paused: Whether nothing may be sent yet.
        on_begin: Called in each process, including forked ones, when it starts to deliver.
    """

    def __init__(
        self,
        max_queue_bytes: int,
        shutdown_timeout: float,
        spool_dir: Path | None = None,
        max_spool_bytes: int = 0,
        *,
        paused: bool = False,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        limits = max_queue_bytes, shutdown_timeout, spool_dir, max_spool_bytes
        copies = limits[0] * SHARE, limits[1] * SHARE, spool_dir and spool_dir / FOLDER, limits[3] * SHARE
        self.copies: Delivery = ToCollector(int(copies[0]), copies[1], copies[2], int(copies[3]), paused=paused)
        left = limits[0] - int(copies[0]), limits[1] - copies[1], spool_dir, limits[3] - int(copies[3])
        super().__init__(*left, paused=paused, on_begin=on_begin)

    def of_process(self, pid: int) -> Delivery:
        """See `Delivery`."""
        successor = cast(WithCollector, super().of_process(pid))
        if successor.copies is self.copies:
            successor.copies = self.copies.of_process(pid)
        return successor

    def put(self, trace: PendingTrace) -> None:
        """See `Delivery`."""
        trace.copy_to = self._copy
        super().put(trace)

    def _copy(self, trace: PendingTrace, encoding: Encoding) -> None:
        self.copies.put(cast(Any, Copy(trace.trace_id, encoding, trace.supplement)))

    def flush(self, timeout: float | None) -> bool:
        """See `Delivery`."""
        until = None if timeout is None else clock.monotonic() + timeout
        is_done = super().flush(timeout)
        return self.copies.flush(None if until is None else max(0.0, until - clock.monotonic())) and is_done

    def deliver(self, timeout: float | None = None) -> bool:
        """See `Delivery`; at a shutdown, which passes a timeout, the copies have their own."""
        is_done = super().deliver(timeout)
        return (timeout is not None or self.copies.deliver()) and is_done

    def shutdown(self, *, last: bool = False) -> None:
        """See `Delivery`."""
        super().shutdown(last=last)
        self.copies.shutdown(last=last)

    def pause(self, paused: bool) -> None:
        """See `Delivery`."""
        super().pause(paused)
        self.copies.pause(paused)

    def relieve(self) -> None:
        """See `Delivery`."""
        super().relieve()
        self.copies.relieve()

    def stats(self) -> Stats:
        """See `Delivery`."""
        return replace(super().stats(), collector=self.copies.stats())
