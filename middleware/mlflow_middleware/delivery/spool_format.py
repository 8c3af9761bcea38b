"""The format of a spool file: one plain OTLP request, with the data that OTLP does not cover beside the spans."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence

from mlflow_middleware.delivery.encoded import EncodedTrace, is_name

INFO_ATTRIBUTE = "mlflow_middleware.trace_info"
"""The resource attribute for a trace's info."""


def encoded(traces: Sequence[EncodedTrace]) -> bytes:
    """Return the content of a file with the given traces."""
    return b"".join(map(_with_info, traces))


def _with_info(trace: EncodedTrace) -> bytes:
    """Return a trace's OTLP request with its info beside the spans."""
    from mlflow_middleware.mlflow_bridge.otlp import ExportTraceServiceRequest  # available only with a supported MLflow

    otlp, info = trace.plain()
    request = ExportTraceServiceRequest.FromString(otlp)
    resource = request.resource_spans[0] if request.resource_spans else request.resource_spans.add()
    attribute = resource.resource.attributes.add()
    attribute.key = INFO_ATTRIBUTE
    kept = {
        "trace_id": trace.trace_id,
        "info": info.decode(),
        "prompts": trace.prompts,
        "attachments": {key: base64.b64encode(content).decode() for key, content in trace.attachments.items()},
        "supplement": trace.supplement,
        "outlived": trace.has_late_spans,
        **({"experiment": trace.experiment_id} if is_name(trace.experiment_id) else {}),
    }
    attribute.value.string_value = json.dumps(kept)
    return bytes(request.SerializeToString())


def read(descriptor: int, experiment_id: str | None, max_bytes: int) -> list[EncodedTrace]:
    """Read the traces of an open file.

    Args:
        descriptor: The open file.
        experiment_id: The experiment of the traces; None for the one that the environment specifies.
        max_bytes: Maximum size of the file, in bytes.

    Raises:
        Exception: The file is not one of the spool's, or incomplete.
    """
    from mlflow_middleware.mlflow_bridge.otlp import ExportTraceServiceRequest

    if (size := os.fstat(descriptor).st_size) > max_bytes:
        raise ValueError(f"it has {size} bytes, more than max_spool_bytes")
    with open(descriptor, "rb", closefd=False) as file:
        request = ExportTraceServiceRequest.FromString(file.read(size))
    traces = []
    for resource in request.resource_spans:
        infos = [each for each in resource.resource.attributes if each.key == INFO_ATTRIBUTE]
        if len(infos) != 1:
            raise ValueError(f"no {INFO_ATTRIBUTE} beside the spans")
        kept = json.loads(infos[0].value.string_value)
        resource.resource.attributes.remove(infos[0])
        spans = any(scope.spans for scope in resource.scope_spans)
        otlp = bytes(ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()) if spans else b""
        traces.append(
            EncodedTrace(
                str(kept["trace_id"]),
                kept.get("experiment", experiment_id),
                otlp,
                kept["info"].encode(),
                [(name, version) for name, version in kept["prompts"]],
                {key: base64.b64decode(content) for key, content in kept["attachments"].items()},
                supplement=bool(kept["supplement"]),
                has_late_spans=bool(kept.get("outlived")),
            )
        )
    if not traces:
        raise ValueError("it is empty")
    return traces
