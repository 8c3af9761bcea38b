"""The download of MLflow's prices."""

from __future__ import annotations

import functools
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from mlflow.entities import Trace
from opentelemetry.context import get_value

from mlflow_middleware.mlflow_bridge import prices
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.common import Common
from mlflow_middleware.trace.description import Description


def test_it_is_not_traced(traces: list[Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by MLflow's spans nor by an instrumented HTTP client, such as OpenTelemetry's."""
    send, suppressed = requests.Session.send, []

    def instrumented(*args: Any, **kwargs: Any) -> Any:
        suppressed.append(get_value("suppress_instrumentation"))
        with mlflow.start_span("GET"):
            return send(*args, **kwargs)

    (tmp_path / "some-provider.json").write_text('{"schema_version": "1.0", "models": {}}')
    server = HTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(requests.Session, "send", instrumented)
    call = Common("", {keys.MODEL: "some-model", keys.PROVIDER: "some-provider"}, {})
    usage = {keys.USAGE: '{"input_tokens": 1, "output_tokens": 1}'}

    prices.add_cost(Description("GET", Common("GET", {}, {}), {}, usage, {}, {}, None, None, call=call))
    for thread in threading.enumerate():
        if thread.name == "mlflow-prices":
            thread.join(60)
    server.shutdown()
    server.server_close()

    assert suppressed == [True]
    assert traces == []
