"""The conversion of search results to MLflow's entities."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict
from mlflow.entities.trace_info import TraceInfo
from mlflow.protos.service_pb2 import SearchTracesV3


def found_traces(reply: dict[str, Any]) -> list[TraceInfo]:
    """Return the traces of a ``POST /api/3.0/mlflow/traces/search`` response, without assessments of unknown kinds."""
    answer = ParseDict(reply, SearchTracesV3.Response(), ignore_unknown_fields=True)
    for trace in answer.traces:
        known = [each for each in trace.assessments if each.WhichOneof("value")]
        del trace.assessments[:]
        trace.assessments.extend(known)
    return [TraceInfo.from_proto(trace) for trace in answer.traces]
