"""Spans that end after their root, and more open traces than MLflow keeps.

The first argument is the experiment, the second one of the functions below.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.delivery.encoder import LATE_SPANS
from mlflow_middleware.settings import Settings


def late(after: float) -> None:
    """A child in a thread that ends some seconds after its root and that has a child of its own by then."""
    root_ended = threading.Event()

    def work(root: mlflow.entities.LiveSpan) -> None:
        child = mlflow.start_span_no_context("late", parent_span=root)
        started.set()
        root_ended.wait()
        time.sleep(after)
        mlflow.start_span_no_context("later", parent_span=child, inputs={"seen": True}).end()
        child.end(outputs="done")

    started = threading.Event()
    root = mlflow.start_span_no_context("root", inputs={"question": "?"}, tags={"plan": "pro"})
    thread = threading.Thread(target=work, args=(root,))
    thread.start()
    started.wait()
    root.end(outputs={"answer": "!"})
    root_ended.set()
    thread.join()


def soon() -> None:
    late(0.5)


def much_later() -> None:
    late(LATE_SPANS + 1.5)


def never() -> None:
    """A child that does not end; the process waits on its standard input."""
    root = mlflow.start_span_no_context("root")
    kept.append(mlflow.start_span_no_context("never ends", parent_span=root))
    mlflow.start_span_no_context("ends", parent_span=root).end()
    root.end()
    for number in range(3):
        mlflow.start_span_no_context(f"next {number}").end()
    sys.stdin.read()


def never_at_exit() -> None:
    """A child that does not end, in a process that does."""
    root = mlflow.start_span_no_context("root")
    kept.append(mlflow.start_span_no_context("never ends", parent_span=root))
    root.end()


def many() -> None:
    """1,100 traces that are all open at the same time."""
    roots = [mlflow.start_span_no_context(str(number)) for number in range(1100)]
    children = [mlflow.start_span_no_context("inner", parent_span=root) for root in roots]
    for span in (*children, *roots):
        span.end()
    delivery.flush()


def slow() -> None:
    """Traces that stay open for longer than the limits in the environment allow."""
    roots = [mlflow.start_span_no_context(str(number)) for number in range(30)]
    time.sleep(2.5)
    mlflow.start_span_no_context("last").end()
    for root in roots:
        mlflow.start_span_no_context("inner", parent_span=root).end()
        root.end()


def flushed() -> None:
    """A trace that is read right after a flush."""
    with mlflow.start_span("root") as root, mlflow.start_span("inner"):
        root.set_inputs({"question": "?"})
        mlflow.update_current_trace(client_request_id="request-1")
    mlflow.flush_trace_async_logging()
    trace = mlflow.get_trace(root.trace_id)
    assert trace is not None
    seen = {
        "spans": sorted(span.name for span in trace.data.spans),
        "client_request_id": trace.info.client_request_id,
        "state": str(trace.info.state),
        "last": mlflow.get_last_active_trace_id() == root.trace_id,
    }
    print(json.dumps(seen))


kept: list[object] = []
delivery.start(Settings.load())
mlflow.set_experiment(sys.argv[1])
globals()[sys.argv[2]]()
