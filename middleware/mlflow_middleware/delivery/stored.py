"""The reading of one stored trace, with a wait: a server has a trace's info shortly before its spans, or after them."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

from mlflow_middleware import mlflow_bridge
from mlflow_middleware._internal import clock
from mlflow_middleware._internal.deadline import within
from mlflow_middleware.delivery.export import current
from mlflow_middleware.delivery.replies import TRACES
from mlflow_middleware.delivery.rest import (
    REQUEST_TIMEOUT,
    ConnectionProblem,
    ask,
    is_local,
    printable,
    root_cause,
    unexpected,
)

if TYPE_CHECKING:
    from mlflow.entities import Trace

WAIT = 5.0
"""Seconds to wait for a trace by default."""

HURRY = 0.5
"""Maximum number of seconds of the wait that are spent first on this process's own delivery."""

SETTLED = 60.0
"""Age of a trace, in seconds, from which its parts are not waited for: if it came through a Collector, or if its
process was killed, its info never comes."""

MIN_PAUSE, MAX_PAUSE = 0.05, 0.5
"""Shortest and longest pause between two reads, in seconds."""


def get(trace_id: str, *, wait: float = WAIT) -> Trace | None:
    """Read one trace with its spans from the server in ``MLFLOW_TRACKING_URI``.

    Right after a response, MLflow's own ``mlflow.get_trace`` may find the trace without its spans and report it as
    corrupted. This function waits until the trace has as many spans as its info announces, unless it is older than a
    minute. It blocks.

    Args:
        trace_id: MLflow's trace id, ``tr-...``, as ``X-MLflow-Trace-ID`` has it.
        wait: Maximum number of seconds to wait; 0 reads once.

    Returns:
        The trace; its readable part if it is still incomplete after that time; None if nothing can be read.

    Raises:
        ValueError: The id is not a trace id, or the wait is not a valid number of seconds.
        ConnectionProblem: The server is unreachable, or refuses the credentials.
    """
    if not isinstance(trace_id, str) or not trace_id.startswith("tr-"):
        raise ValueError(f"trace_id must start with 'tr-', not {trace_id!r}")
    if not 0 <= wait < math.inf:
        raise ValueError(f"wait must be 0 or more seconds, not {wait}")
    if wait and (delivery := current()):
        delivery.flush(min(HURRY, wait))
    tracking_uri = mlflow_bridge.client.tracking_uri()
    until, left, pause = clock.monotonic() + wait, wait, MIN_PAUSE
    while True:
        trace = _look(tracking_uri, trace_id)
        left = min(left, until - clock.monotonic())
        if left <= 0 or (trace is not None and (mlflow_bridge.is_whole(trace) or _is_settled(trace))):
            return trace
        time.sleep(pause := min(pause, left))
        left -= pause  # a test may have stopped the clock
        pause = min(2 * pause, MAX_PAUSE)


def _is_settled(trace: Trace) -> bool:
    ended: int = trace.info.request_time + (trace.info.execution_duration or 0)
    return time.time() - ended / 1000 > SETTLED


def _look(tracking_uri: str, trace_id: str) -> Trace | None:
    if not is_local(tracking_uri):  # MLflow's own client would retry for minutes if the server is unreachable
        status, answer = ask(tracking_uri, "GET", f"{TRACES}/{trace_id}")
        if status == 404:
            return None
        if status != 200:
            raise ConnectionProblem(unexpected(tracking_uri, status, answer))
    try:
        return within(REQUEST_TIMEOUT, partial(mlflow_bridge.stored_trace, tracking_uri, trace_id))
    except Exception as error:
        raise ConnectionProblem(f"{printable(tracking_uri)} did not return the trace ({root_cause(error)})") from error
