"""A store that full MLflow accesses directly: a database or a folder, through MLflow's own client.

The errors are MLflow's and those of the database's driver.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from google.protobuf.json_format import ParseDict
from mlflow.entities import Span, TraceData
from mlflow.entities.trace_info import TraceInfo
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import StartTraceV3
from mlflow.tracing.client import TracingClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mlflow_middleware.mlflow_bridge.artifacts import spans_of, store_attachments
from mlflow_middleware.mlflow_bridge.otlp import undo_text

try:
    import fcntl
except ImportError:  # Windows, where apps have no workers
    fcntl = None  # type: ignore[assignment]

_opened_by: dict[str, int] = {}


def prepare(tracking_uri: str) -> None:
    """Import the store's modules, and create a new SQLite file, which takes seconds.

    This must not happen later, during requests: an exit might come first, and a fork during an import locks it in the
    child.
    """
    if not urlsplit(tracking_uri).scheme.startswith(("sqlite", "postgresql", "mysql", "mssql")):
        return
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    path = unquote(tracking_uri.partition("?")[0].removeprefix("sqlite:///"))
    if tracking_uri.startswith("sqlite:///") and path not in ("", ":memory:") and not os.path.exists(path):
        client_for(tracking_uri)


def client_for(tracking_uri: str) -> TracingClient:
    """Return MLflow's client; open or create the store if this process has not used it yet."""
    with contextlib.nullcontext() if tracking_uri in _opened_by else _alone(tracking_uri):
        client = TracingClient(tracking_uri)
        store = client.store
    if _opened_by.setdefault(tracking_uri, os.getpid()) != os.getpid():  # never share a parent's connections
        _opened_by[tracking_uri] = os.getpid()
        with contextlib.suppress(AttributeError):  # a folder has no engine
            store.engine.dispose(close=False)
    return client


@contextlib.contextmanager
def _alone(tracking_uri: str) -> Iterator[None]:
    """Wait until no other process of this user opens the store: two that create its tables at once would break it."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # the folder for lock files may be read-only
                file = stack.enter_context(open(_lock_of(tracking_uri), "a"))
                fcntl.lockf(file, fcntl.LOCK_EX)  # unlike flock, not held by a child that is forked meanwhile
        yield


def _lock_of(tracking_uri: str) -> str:
    where = hashlib.sha256(f"{os.getuid()} {os.getcwd()} {tracking_uri}".encode()).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"mlflow-middleware-{where}.lock")


def find_experiment(tracking_uri: str, key: str, value: str) -> dict[str, Any] | None:
    """Find an experiment by ``experiment_id`` or ``experiment_name``, in a server's form; None if it does not exist."""
    store = client_for(tracking_uri).store
    try:
        by_name = key == "experiment_name"
        found = store.get_experiment_by_name(value) if by_name else store.get_experiment(value)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return {"experiment_id": found.experiment_id, "lifecycle_stage": found.lifecycle_stage} if found else None


def create_experiment(tracking_uri: str, name: str) -> str:
    """Create an experiment; return its id."""
    return str(client_for(tracking_uri).store.create_experiment(name))


def store_info(tracking_uri: str, info: bytes) -> TraceInfo:
    """Store a trace's info, given as the body of ``POST /api/3.0/mlflow/traces``."""
    message = ParseDict(json.loads(info), StartTraceV3(), ignore_unknown_fields=True)
    return client_for(tracking_uri).start_trace(TraceInfo.from_proto(message.trace.trace_info))


def stored_info(tracking_uri: str, trace_id: str) -> dict[str, Any]:
    """Return a stored trace's info as in MLflow's API; empty if it does not exist."""
    try:
        found: dict[str, Any] = client_for(tracking_uri).get_trace_info(trace_id).to_dict()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
    except (AttributeError, TypeError):  # a folder in which an attempt has left a trace half stored
        return {}
    return found


def whole_info(tracking_uri: str, trace_id: str) -> TraceInfo | None:
    """Return a stored trace's info without its assessments, to store it again; None if the trace is incomplete."""
    try:
        info: TraceInfo = client_for(tracking_uri).get_trace_info(trace_id)
    except MlflowException:
        return None
    info.assessments = []
    return info if info.state in (TraceState.OK, TraceState.ERROR) else None


def restore_info(tracking_uri: str, info: TraceInfo) -> None:
    """Store a trace's info again."""
    client_for(tracking_uri).start_trace(info)


def store_spans(tracking_uri: str, experiment_id: str, otlp: bytes) -> bool:
    """Store the spans of many traces, given as an OTLP request.

    Returns:
        Whether the store accepts spans; folders need `store_spans_as_artifact`.
    """
    try:
        spans: list[Span] = spans_of(ExportTraceServiceRequest.FromString(otlp))
        client_for(tracking_uri).log_spans(experiment_id, spans)
    except NotImplementedError:
        return False
    return True


def store_spans_as_artifact(tracking_uri: str, info: TraceInfo, otlp: bytes) -> None:
    """Store a trace's spans as an artifact beside its info."""
    data = TraceData(spans_of(ExportTraceServiceRequest.FromString(otlp)))
    for span in data.spans:
        undo_text(span)
    client_for(tracking_uri)._upload_trace_data(info, data)


def add_attachments(tracking_uri: str, info: TraceInfo, attachments: Mapping[str, bytes]) -> None:
    """Store a trace's attachments as artifacts."""
    store_attachments(client_for(tracking_uri), info, attachments)


def link_prompts(tracking_uri: str, trace_id: str, prompts: Sequence[tuple[str, str]]) -> None:
    """Link versions of prompts to a trace."""
    from mlflow.entities.model_registry import PromptVersion

    versions = [PromptVersion(name, int(version), template="") for name, version in prompts]
    client_for(tracking_uri).link_prompt_versions_to_trace(trace_id, versions)


def delete_trace(tracking_uri: str, experiment_id: str, trace_id: str) -> None:
    """Delete a trace."""
    client_for(tracking_uri).delete_traces(experiment_id, trace_ids=[trace_id])


def problem_of(error: Exception) -> tuple[int, str]:
    """Return the status of a server whose store fails in this way, and MLflow's error code."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code()), str(error.error_code)
    return 500, type(error).__name__
