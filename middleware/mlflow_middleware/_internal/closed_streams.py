"""Lines of our log reach the handlers that can still write.

At an exit, streams may be closed that the app's logging writes to, as with pytest's capture: Python would print a
traceback for each line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

_LOGGERS = ("mlflow_middleware", "mlflow_middleware.delivery", "mlflow_middleware.feedback")


def install() -> None:
    """Have our loggers do so."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_passes)


def _passes(record: logging.LogRecord) -> bool:
    """Whether logging may go on; else the handlers that can write have the line already."""
    handlers = list(_handlers(logging.getLogger(record.name))) or [logging.lastResort or logging.NullHandler()]
    if not any(map(_is_closed, handlers)):
        return True
    for each in handlers:
        if record.levelno >= each.level and not _is_closed(each):
            each.handle(record)
    return False


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    while logger:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _is_closed(handler: logging.Handler) -> bool:
    """Whether its stream is closed; Rich keeps it in a console."""
    try:
        stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
        return getattr(stream, "closed", False) is True
    except Exception:  # an app's own handler, or a stream that stands for another
        return False
