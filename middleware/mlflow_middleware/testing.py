"""Helpers for your own tests: capture the traces of your app's requests, without a server and without waiting.

::

    from mlflow_middleware.testing import captured_traces


    def test_an_answer_is_traced_with_its_user():
        with captured_traces() as traces:
            client.get("/chats/c-1", headers={"X-User-ID": "jane"})

        (trace,) = traces
        assert trace.info.tags["mlflow.trace.user"] == "jane"

With pytest, the fixture ``captured_traces`` is that list. Both work with Starlette's ``TestClient``, with the test
clients of Flask and Django, and without a client, for spans that your code opens itself. The trace of a streamed
response ends when your test has read the response to its end.
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
    """Capture every trace of this process that ends inside the block; nothing is sent to a server meanwhile.

    Traces that were pending before stay pending and are sent afterwards. If blocks are nested, the innermost captures
    the traces.

    Yields:
        The traces as ``mlflow.entities.Trace``, in order of completion, with inputs and outputs, tags, metadata and
        spans. The list grows with each trace. If a span ends after its root, an updated trace replaces the first.

    Raises:
        RuntimeError: The installed version of MLflow is incompatible: it builds traces in an unknown way.
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
