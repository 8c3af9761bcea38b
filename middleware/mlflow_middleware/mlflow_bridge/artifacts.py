"""The storage of spans and attachments as artifacts, for servers that do not keep them in their database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import requests
from google.protobuf.json_format import ParseDict
from mlflow.entities import Span, TraceData
from mlflow.entities.trace_info import TraceInfo
from mlflow.protos.service_pb2 import StartTraceV3
from mlflow.tracing.client import TracingClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlflow_middleware.mlflow_bridge.otlp import undo_text
from mlflow_middleware.mlflow_bridge.tracking_client import request
from mlflow_middleware.mlflow_bridge.uris import is_databricks


def upload_spans(tracking_uri: str, reply: dict[str, Any], otlp: bytes, *, timeout: float) -> None:
    """Store a trace's spans as an artifact.

    Args:
        tracking_uri: The server.
        reply: The response to ``POST /api/3.0/mlflow/traces``, which contains the artifact's location.
        otlp: The spans, as an OTLP request.
        timeout: Seconds to wait for a connection, and for each read.

    Raises:
        requests.HTTPError: A Databricks workspace, or its storage, refused the spans.
    """
    info = _info(reply)
    data = TraceData(spans_of(ExportTraceServiceRequest.FromString(otlp)))
    for span in data.spans:
        undo_text(span)
    if is_databricks(tracking_uri) and info.tags.get("mlflow.artifactLocation", "").startswith("dbfs:"):
        _upload_to_workspace(tracking_uri, info, data, timeout)
        return
    TracingClient(tracking_uri)._upload_trace_data(info, data)


def spans_of(export: ExportTraceServiceRequest) -> list[Span]:
    """Return MLflow's spans for an OTLP request."""
    return [
        Span.from_otel_proto(span)
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _upload_to_workspace(tracking_uri: str, info: TraceInfo, data: TraceData, timeout: float) -> None:
    """Upload to a workspace's storage; only Azure's ADLS uses MLflow's own upload, which retries for minutes."""
    path = f"/api/2.0/mlflow/traces/{info.trace_id}/credentials-for-data-upload"
    answer = request(tracking_uri, "GET", path, timeout=timeout)
    answer.raise_for_status()
    signed = answer.json()["credential_info"]
    if signed["type"] == "AZURE_ADLS_GEN2_SAS_URI":
        TracingClient(tracking_uri)._upload_trace_data(info, data)
        return
    headers = {header["name"]: header["value"] for header in signed.get("headers", ())}
    if signed["type"] == "AZURE_SAS_URI":  # https://learn.microsoft.com/rest/api/storageservices/put-blob
        headers["x-ms-blob-type"] = "BlockBlob"
    body = json.dumps(data.to_dict(), default=str, ensure_ascii=False).encode()
    requests.put(signed["signed_uri"], data=body, headers=headers, timeout=timeout).raise_for_status()


def upload_attachments(tracking_uri: str, reply: dict[str, Any], attachments: Mapping[str, bytes]) -> None:
    """Store a trace's attachments as artifacts.

    Args:
        tracking_uri: The server.
        reply: The response to ``POST /api/3.0/mlflow/traces``, which contains the artifacts' location.
        attachments: The files, by id.
    """
    store_attachments(TracingClient(tracking_uri), _info(reply), attachments)


def store_attachments(client: TracingClient, info: TraceInfo, attachments: Mapping[str, bytes]) -> None:
    """Store a trace's attachments as artifacts, at the location in its info."""
    repository = client._get_artifact_repo_for_trace(info)
    for key, content in attachments.items():
        repository.upload_attachment(key, content)


def _info(reply: dict[str, Any]) -> TraceInfo:
    answer = ParseDict(reply, StartTraceV3.Response(), ignore_unknown_fields=True)
    return TraceInfo.from_proto(answer.trace.trace_info)
