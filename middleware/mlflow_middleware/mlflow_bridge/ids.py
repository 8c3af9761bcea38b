"""Ids of spans that are made to be looked at, not to be stored."""

from __future__ import annotations

from opentelemetry.sdk.trace.id_generator import IdGenerator


class CountingIds(IdGenerator):
    """Ids that count: the random numbers of an app that has seeded them are left alone."""

    def __init__(self) -> None:
        self._last = 0

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        self._last += 1
        return self._last

    generate_trace_id = generate_span_id
