"""The cost of tokens, and the download of MLflow's prices."""

from __future__ import annotations

import functools
import json
import sys
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


def add_cost(provider: str) -> Description:
    """Return a description to which the cost was added, unless its prices had to be loaded first."""
    call = Common("", {keys.MODEL: "some-model", keys.PROVIDER: provider}, {})
    usage = {keys.USAGE: '{"input_tokens": 1000000, "output_tokens": 2000000, "cache_read_input_tokens": 0}'}
    description = Description("GET", Common("GET", {}, {}), {}, usage, {}, {}, None, None, call=call)
    prices.add_cost(description)
    for thread in threading.enumerate():
        if thread.name == "mlflow-prices":
            thread.join(60)
    return description


def test_a_cost_needs_no_litellm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import would take seconds and memory, and a child that is forked meanwhile could never import it."""
    (tmp_path / "litellm.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    pricing = {"input_per_million_tokens": 3, "output_per_million_tokens": 15}
    (tmp_path / "a-provider.json").write_text(json.dumps({"models": {"some-model": {"pricing": pricing}}}))
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", tmp_path.as_uri())

    assert not add_cost("a-provider").metadata
    cost = json.loads(add_cost("a-provider").metadata[keys.TRACE_COST])

    assert cost == pytest.approx({"input_cost": 3, "output_cost": 30, "total_cost": 33})
    assert "litellm" not in sys.modules


def test_the_download_is_not_traced(traces: list[Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    add_cost("some-provider")
    server.shutdown()
    server.server_close()

    assert suppressed == [True]
    assert traces == []
