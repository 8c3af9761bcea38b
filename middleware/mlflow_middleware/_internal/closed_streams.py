"""Logging to closed streams: log records reach only the handlers that can still write.

At exit, the streams of the app's log handlers may be closed already, as with pytest's capture. Python would print a
traceback for each record.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

_LOGGERS = ("mlflow_middleware", "mlflow_middleware.delivery", "mlflow_middleware.feedback")


def install() -> None:
    """Add the filter to the middleware's loggers."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_passes)


def _passes(record: logging.LogRecord) -> bool:
    """Return whether to handle a record as usual; if a handler's stream is closed, pass it to the others and stop."""
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
    """Return whether a handler's stream is closed; Rich's handler keeps the stream in a console."""
    try:
        stream = getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
        return getattr(stream, "closed", False) is True
    except Exception:  # a custom handler, or a proxy for a stream
        return False
