"""``MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false`` beside an app's own OpenTelemetry; more in ``tests/tools``."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

import requests

from tests.conftest import Traces
from tests.servers import MLflowServer, clean_environment, eventually, free_port, serving


def test_one_trace_per_request(server: MLflowServer, tmp_path: Path, request_id: str) -> None:
    """It has the server span, the request's below it, and the handler's; the app's own exporter has the same."""
    experiment, port, exported = f"shared-{uuid.uuid4().hex}", free_port(), tmp_path / "exported"
    environment = clean_environment(
        MLFLOW_TRACKING_URI=server.uri,
        MLFLOW_EXPERIMENT_NAME=experiment,
        MLFLOW_USE_DEFAULT_TRACER_PROVIDER="false",
        APP_EXPORTED=str(exported),
    )
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "tests.apps.shared_provider:app"]
    traces = Traces(server.uri, experiment)
    with serving(command, environment, tmp_path / "log", port) as (_, url):
        for _ in range(2):  # MLflow may not be ready for the first
            headers = {"X-Request-ID": request_id, "X-Session-ID": "s-1"}
            answer = requests.post(f"{url}/chats/c-1", json={"question": "hello"}, headers=headers, timeout=60)
        found = traces.wait(f"tags.client_request_id = '{request_id}'", 2)
        eventually(lambda: len(exported.read_text().splitlines()) == 8, "8 exported spans")

    rows = [json.loads(line) for line in exported.read_text().splitlines()]
    for trace in found:
        spans = {span.span_id: [span.parent_id, span.name] for span in trace.data.spans}
        assert spans == {row[1]: row[2:] for row in rows if f"tr-{row[0]}" == trace.info.trace_id}
        by_name = {name: (span, parent) for span, (parent, name) in spans.items()}
        assert [by_name[name][1] for name in ("server", "POST", "query", "answer")] == [
            None,
            *(by_name[name][0] for name in ("server", "POST", "query")),
        ]
        assert trace.info.tags["mlflow.traceName"] == "POST"
        assert (trace.info.request_preview, trace.info.response_preview) == (
            '{"question": "hello"}',
            '{"answer": "hello"}',
        )
        assert trace.info.trace_metadata["mlflow.trace.session"] == "s-1"
    assert answer.headers["X-MLflow-Trace-ID"] in {trace.info.trace_id for trace in found}
    assert len(traces.search()) == 2
