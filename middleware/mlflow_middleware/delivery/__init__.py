"""From a finished trace to the server, for the whole process.

``start()`` puts it in place of MLflow's own export; from then on every trace of the process takes this way, those of
the middleware and those that the app opens itself.
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
        timeout: Seconds to wait at most; None waits for ever.

    Returns:
        Whether nothing is pending any more.
    """
    delivery = current()
    return delivery is None or delivery.flush(timeout)


def deliver() -> None:
    """Deliver what is pending within ``shutdown_timeout``; for a process that may be frozen after this."""
    if delivery := current():
        delivery.deliver()


def shutdown() -> None:
    """Deliver what is pending within ``shutdown_timeout``, and spool the rest; for a server's shutdown hook."""
    if delivery := current():
        delivery.shutdown()


def leave_out(reason: str) -> None:
    """Count a request whose trace nobody wants; see `Stats.left_out`."""
    if delivery := current():
        delivery.leave_out(reason)


def stats() -> Stats:
    """What became of the traces of this process, and how it stands; looks into the spool's directory, if any."""
    delivery = current()
    return with_spool(delivery) if delivery else Stats()
