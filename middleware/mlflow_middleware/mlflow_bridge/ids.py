"""Ids of spans whose ids are known before they begin, and of sample spans."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import id_generator
from opentelemetry.sdk.trace.id_generator import IdGenerator

if TYPE_CHECKING:
    from mlflow_middleware.mlflow_bridge.root import Root


class _Materializing(threading.local):
    """The root that this thread materializes or ends."""

    root: Root | None = None


_here = _Materializing()


@contextmanager
def materializing(root: Root) -> Iterator[None]:
    """Let spans that begin or end inside be known for those of a root whose ids and times are known."""
    _here.root = root
    try:
        yield
    finally:
        _here.root = None


def being_materialized() -> Root | None:
    """The root whose span begins or ends right now, where it is one that has begun before."""
    return _here.root


class Ids(IdGenerator):
    """Gives a root that is being materialized the ids that it has already; anything else gets new ones.

    Args:
        around: What gives new ids.
    """

    def __init__(self, around: IdGenerator) -> None:
        self.around = around

    def generate_trace_id(self) -> int:
        """See ``IdGenerator``."""
        root = _here.root
        return root.record.ids.trace_id if root else self.around.generate_trace_id()

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        root = _here.root
        return root.record.ids.span_id if root else self.around.generate_span_id()

    def is_trace_id_random(self) -> bool:
        """See ``IdGenerator``."""
        return bool(getattr(self.around, "is_trace_id_random", bool)())


class SystemIds(IdGenerator):
    """New ids from the operating system, each time.

    OpenTelemetry takes them from ``random``, which apps seed: then trace ids repeat, and a server keeps one trace of
    those with the same. None are drawn ahead: a child that was forked, or an image of the process that is resumed many
    times, would have the same ones.
    """

    def generate_trace_id(self) -> int:
        """See ``IdGenerator``."""
        return int.from_bytes(os.urandom(16), "big") or self.generate_trace_id()  # zero is no id

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        return int.from_bytes(os.urandom(8), "big") or self.generate_span_id()

    def is_trace_id_random(self) -> bool:
        """See ``IdGenerator``."""
        return True


def take_ids_of_the_system() -> None:
    """Let OpenTelemetry's own generator take its ids from the operating system, too: where the app has made the tracer
    provider, its tracers have that already.
    """
    theirs: Any = getattr(id_generator, "RandomIdGenerator", None)
    if theirs is not None:
        theirs.generate_trace_id = SystemIds.generate_trace_id
        theirs.generate_span_id = SystemIds.generate_span_id


class CountingIds(IdGenerator):
    """Ids that count: the random numbers of an app that has seeded them are left alone."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        self.last += 1
        return self.last

    generate_trace_id = generate_span_id
