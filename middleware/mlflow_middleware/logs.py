"""A logging filter that adds the request's ids to every log record.

::

    handler.addFilter(ContextFilter())
    handler.setFormatter(logging.Formatter("%(levelname)s [%(request_id)s %(trace_id)s] %(message)s"))
"""

from __future__ import annotations

import logging

from mlflow_middleware.request_trace import current


class ContextFilter(logging.Filter):
    """Filter that sets ``request_id``, ``session_id``, ``user_id`` (as stored) and ``trace_id`` on every record.

    Args:
        name: As for ``logging.Filter``.
        default: The value outside a request, or for an unknown id.
    """

    def __init__(self, name: str = "", default: str = "-") -> None:
        super().__init__(name)
        self.default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the four attributes; keep the record, unless ``name`` excludes it."""
        trace = current()
        who = trace.identity if trace else None
        known = {
            "request_id": who and who.request_id,
            "session_id": who and who.session_id,
            "user_id": trace and trace.user_id,
            "trace_id": trace and trace.trace_id,
        }
        for name, value in known.items():
            if value or not hasattr(record, name):  # keep the `extra` of the log call if the id is unknown
                setattr(record, name, value or self.default)
        return super().filter(record)
