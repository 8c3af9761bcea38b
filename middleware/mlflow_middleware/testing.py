"""For your own tests: the traces that your app's requests make, with no server and no waiting.

::

    from mlflow_middleware.testing import captured_traces


    def test_an_answer_is_traced_with_its_user():
        with captured_traces() as traces:
            client.get("/chats/c-1", headers={"X-User-ID": "jane"})

        (trace,) = traces
        assert trace.info.tags["mlflow.trace.user"] == "jane"

or, with pytest, the fixture ``captured_traces``, which is the list. It works with Starlette's ``TestClient``, the test
clients of Flask and Django, and without any, for the spans that your code opens by itself. A streamed answer's trace
ends when your test has read it to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow_middleware import delivery
from mlflow_middleware._internal.guard import report
from mlflow_middleware.delivery.experiment import DEFAULT_EXPERIMENT
from mlflow_middleware.trace.record import CONTINUED

if TYPE_CHECKING:
    from mlflow.entities import Trace

    from mlflow_middleware.mlflow_bridge import PendingTrace

__all__ = ["captured_traces"]


@contextmanager
def captured_traces() -> Iterator[list[Trace]]:
    """Capture every trace of this process that ends inside; nothing is sent to any server meanwhile.

    What waited for delivery before goes on waiting, and is sent afterwards. When it is nested, the innermost gets the
    traces.

    Yields:
        The traces as MLflow's own entities, in the order of their completion: inputs and outputs, tags, metadata and
        spans. It grows with each one. A span that ends after its root puts the trace in place anew.

    Raises:
        RuntimeError: The installed MLflow builds its traces in a way that is not known here.
    """
    traces: list[Trace] = []
    lock = threading.Lock()

    def put(finished: PendingTrace) -> None:
        try:
            with lock:
                _add(traces, finished.entity(finished.experiment_id or DEFAULT_EXPERIMENT))
        except Exception as error:
            report("captured_traces", error)

    with delivery.capturing(put):
        yield traces


def _add(traces: list[Trace], trace: Trace) -> None:
    is_addition = trace.info.trace_metadata.pop(CONTINUED, None)
    for place, known in enumerate(traces):
        if known.info.trace_id == trace.info.trace_id:
            new, old = (trace, known) if is_addition is None else (known, trace)
            present = {span.span_id for span in new.data.spans}
            new.data.spans += [span for span in old.data.spans if span.span_id not in present]
            traces[place] = new
            return
    traces.append(trace)
