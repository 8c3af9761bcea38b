"""Work that an app does after its answer, until a test opens its gate."""

from __future__ import annotations

import threading
from collections import defaultdict

import mlflow

from mlflow_middleware.request_trace import annotate, current

_gates: dict[str, threading.Event] = defaultdict(threading.Event)


def begin() -> None:
    """The first part of the work, with a span of its own that ends."""
    with mlflow.start_span("afterwards"):
        annotate(tags={"afterwards": "begun"})


def end() -> None:
    """The second part, once the gate is open."""
    trace = current()
    assert trace is not None
    _gates[str(trace.identity.request_id)].wait(300)
    with mlflow.start_span("at last"):
        annotate(tags={"afterwards": "done"})


def work() -> None:
    """Run both parts."""
    begin()
    end()


def open_gate(request_id: str) -> None:
    """Let the work of a request end."""
    _gates[request_id].set()
