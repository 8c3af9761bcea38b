"""Delivery of the process's finished traces to the server.

``start()`` installs it instead of MLflow's own export. From then on it delivers every trace of the process, including
those that the app opens itself.
"""

from __future__ import annotations

from mlflow_middleware.delivery.export import capturing, current, is_capturing, is_recent, start
from mlflow_middleware.delivery.standing import with_spool
from mlflow_middleware.delivery.stats import Stats

__all__ = [
    "Stats",
    "capturing",
    "deliver",
    "flush",
    "is_capturing",
    "is_recent",
    "leave_out",
    "shutdown",
    "start",
    "stats",
]


def flush(timeout: float | None = None) -> bool:
    """Wait until every finished trace is delivered, spooled or refused.

    Args:
        timeout: Maximum number of seconds to wait; None for no limit.

    Returns:
        Whether no trace is pending any more.
    """
    delivery = current()
    return delivery is None or delivery.flush(timeout)


def deliver() -> None:
    """Deliver pending traces within ``shutdown_timeout``, for a process that may be frozen afterwards."""
    if delivery := current():
        delivery.deliver()


def shutdown() -> None:
    """Deliver pending traces within ``shutdown_timeout`` and spool the rest, for a server's shutdown hook."""
    if delivery := current():
        delivery.shutdown()


def leave_out(reason: str) -> None:
    """Count a request whose trace is not wanted; see `Stats.left_out`."""
    if delivery := current():
        delivery.leave_out(reason)


def stats() -> Stats:
    """Return the counts and the state of this process's delivery, including the size of the spool, if any."""
    delivery = current()
    return with_spool(delivery) if delivery else Stats()
