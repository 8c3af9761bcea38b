"""Steps of ``mlflow-middleware check`` with a trace: write it, read it back, delete it."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from mlflow_middleware.commands.check_chain import ANSWER_TIME, Chain, NotNeeded, Wrong, milliseconds
from mlflow_middleware.commands.check_server import ask
from mlflow_middleware.trace import keys

PROBE = "mlflow-middleware check"
"""The name of the probe trace."""

LAST_TIME = 1.0
"""Maximum number of seconds to delete the probe after the time limit."""

MAX_TRIES = 500
"""Maximum number of traces that are opened until one is sampled, if MLflow is configured to sample."""

_TRACES = "/api/3.0/mlflow/traces"
_DELETE = "/api/2.0/mlflow/traces/delete-traces"


def write(chain: Chain) -> str:
    """Send a trace in the usual way."""
    from mlflow_middleware.delivery.encoded import EncodedTrace
    from mlflow_middleware.delivery.replies import PermanentError, RetryableError
    from mlflow_middleware.delivery.sinks import sink_for

    chain.need_server()
    probe = EncodedTrace.encode(_probe())
    chain.trace_id = probe.trace_id
    sink = sink_for(chain.uri)
    began = time.monotonic()
    try:
        for _ in range(2):  # again if the server turns out not to take spans over OTLP
            apart = sink.sends_spans_apart
            chain.may_be_left = True
            for outcome in sink.send_infos(chain.experiment_id, [probe]):
                if outcome is not None:
                    raise outcome
            if apart:
                sink.send_spans(chain.experiment_id, [probe])
            if apart == sink.sends_spans_apart:
                break
    except (RetryableError, PermanentError) as problem:
        message = f"a trace could not be stored: {problem}; check the server's log"
        raise Wrong(f"{message}{_delete(chain)}") from problem
    finally:
        sink.close()
    chain.stored_in = time.monotonic() - began
    return f"trace {chain.trace_id} stored"


def read_back(chain: Chain) -> str:
    """Check that the server returns the trace, and deletes it on request."""

    _need_trace(chain)
    try:
        status, answer = ask(chain, "GET", f"{_TRACES}/{chain.trace_id}")
        info = answer["trace"]["trace_info"] if status == 200 else {}
        if info.get("tags", {}).get(keys.NAME) != PROBE:
            raise Wrong(
                f"{chain.shown_uri} accepted the trace but does not return it (status {status}); may this "
                "user read the experiment, and do all replicas share one database?"
            )
    except Wrong as problem:
        raise Wrong(f"{problem}{_delete(chain)}") from problem
    return "found as written" + (_delete(chain) or ", and deleted again")


def latency(chain: Chain) -> str:
    """Report the duration of a response and of storing a trace; requests never wait for them."""
    _need_trace(chain)
    answered, stored = milliseconds(chain.answered_in), milliseconds(chain.stored_in)
    return f"{answered} for an answer, {stored} to store a trace; requests do not wait for it"


def clean_up(chain: Chain) -> str:
    """Delete the probe after the time limit, within `LAST_TIME`; return a report if it may be stored."""
    if not chain.may_be_left:
        return ""
    reports: list[str] = []
    last = threading.Thread(target=lambda: reports.append(_delete(chain, timeout=LAST_TIME)), daemon=True)
    last.start()
    last.join(LAST_TIME)
    if reports == [""]:
        return f"; the probe {chain.trace_id} has been deleted"
    return f"; the probe may have been stored: delete {chain.trace_id} by hand"


def _delete(chain: Chain, timeout: float = ANSWER_TIME) -> str:
    """Delete the probe; return a report of a failure."""
    body = {"experiment_id": chain.experiment_id, "request_ids": [chain.trace_id]}
    try:
        status, _ = ask(chain, "POST", _DELETE, json=body, timeout=timeout)
        problem = "" if status == 200 else f"status {status}"
    except Wrong as no_answer:
        problem = str(no_answer)
    chain.may_be_left = bool(problem)
    return f"; the probe was not deleted ({problem}): delete {chain.trace_id} by hand" if problem else ""


def _need_trace(chain: Chain) -> None:
    chain.need_server()
    if not chain.trace_id:
        raise NotNeeded("no trace was written")


def _probe() -> Any:
    """Create a finished trace, opened and ended like a request's."""
    from mlflow_middleware import delivery, mlflow_bridge
    from mlflow_middleware.exchange import Exchange
    from mlflow_middleware.settings import Settings
    from mlflow_middleware.trace.record import TraceRecord

    finished: list[mlflow_bridge.PendingTrace] = []
    ratio = _sampling_ratio()
    with delivery.capturing(finished.append):
        for _ in range(MAX_TRIES if 0 < ratio < 1 else 1):
            record = TraceRecord(Exchange("GET", "/", {}), Settings.model_construct())
            record.annotate({keys.NAME: PROBE}, {})
            root = mlflow_bridge.open_root_span(record)
            if root is not None:
                root.end()
                break
    if finished:
        return finished[0]
    if 0 < ratio < 1:
        raise NotNeeded(f"MLFLOW_TRACE_SAMPLING_RATIO={ratio:g}: none of {MAX_TRIES} traces was sampled")
    raise Wrong(
        "MLflow opens no trace in this process: check MLFLOW_TRACE_SAMPLING_RATIO, OTEL_SDK_DISABLED and calls of "
        "mlflow.tracing.disable()"
    )


def _sampling_ratio() -> float:
    """Return MLflow's sampling ratio; 1 if it is not set."""
    try:
        return float(os.environ.get("MLFLOW_TRACE_SAMPLING_RATIO") or 1.0)
    except ValueError:
        return 1.0
