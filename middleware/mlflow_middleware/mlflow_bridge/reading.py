"""The reading of one trace with its spans, through MLflow's own client."""

from __future__ import annotations

import json
from contextlib import suppress

from mlflow.entities import Trace
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient

from mlflow_middleware.trace import keys

_NOT_YET = frozenset(
    ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "BAD_REQUEST", "INVALID_STATE", "INVALID_PARAMETER_VALUE")
)
"""MLflow's error codes for a trace that is not stored, or whose spans are not."""


def stored_trace(tracking_uri: str, trace_id: str) -> Trace | None:
    """Return a trace as far as it is readable now; None if the trace or its spans are not stored.

    Raises:
        MlflowException: The server or the store fails in another way.
    """
    try:
        return TracingClient(tracking_uri).get_trace(trace_id)
    except MlflowException as error:
        if error.error_code in _NOT_YET:
            return None
        raise


def is_whole(trace: Trace) -> bool:
    """Return whether a trace has its info, and as many spans as the info announces."""
    announced = 0
    with suppress(ValueError, TypeError, KeyError):
        announced = int(json.loads(trace.info.trace_metadata[keys.SIZE_STATS])["num_spans"])
    return 0 < announced <= len(trace.data.spans)
