"""The ids of spans that are known before the span begins, and of sample spans."""

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
    """The root that this thread is materializing or ending."""

    root: Root | None = None


_here = _Materializing()


@contextmanager
def materializing(root: Root) -> Iterator[None]:
    """Mark the spans that begin or end inside as those of a root whose ids and times are already known."""
    _here.root = root
    try:
        yield
    finally:
        _here.root = None


def being_materialized() -> Root | None:
    """Return the root whose span this thread is materializing or ending, if any."""
    return _here.root


class Ids(IdGenerator):
    """Generator that returns the existing ids for a root that is being materialized, and new ids otherwise.

    Args:
        around: Generates new ids.
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
    """Generator of ids from the operating system.

    OpenTelemetry uses ``random``, which apps seed: then trace ids repeat, and a server keeps only one trace of each id.
    No ids are generated ahead: forked children, or a process image that is resumed several times, would share them.
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
    """Make OpenTelemetry's own generator use the operating system, too: tracers of a provider that the app has built
    already refer to it.
    """
    theirs: Any = getattr(id_generator, "RandomIdGenerator", None)
    if theirs is not None:
        theirs.generate_trace_id = SystemIds.generate_trace_id
        theirs.generate_span_id = SystemIds.generate_span_id


class CountingIds(IdGenerator):
    """Generator of consecutive ids, which leaves the app's seeded random numbers untouched."""

    def __init__(self) -> None:
        self.last = 0

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        self.last += 1
        return self.last

    generate_trace_id = generate_span_id
