"""One run of the app with a tool: start, requests, and the data that arrived."""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow as client
import requests

from tests.comparison.arrived import READERS, mlflow
from tests.comparison.door import Door
from tests.comparison.questions import Run, Seen
from tests.comparison.requests_made import make_all, vote, vote_by_package
from tests.comparison.sink import Sink
from tests.comparison.spans import Span
from tests.servers import MLflowServer, Process, clean_environment, free_port

QUIET = 7.0
"""Seconds without anything new after which a run is over; each tool sends within five."""


class Lab:
    """A tool in a mode, and its destination.

    Args:
        tool: One of ``tools.MODULES``.
        mode: One of ``tools.MODES``.
        server: The MLflow server, for the tools that send there.
    """

    def __init__(self, tool: str, mode: str, server: MLflowServer | None = None) -> None:
        self.tool, self.mode = tool, mode
        self.sink: Sink | Door = Door(server.port) if server else Sink()
        self.experiment = f"compare-{uuid.uuid4().hex}"
        self.folder = Path(tempfile.mkdtemp(prefix="compare-"))
        self.sink.start()

    def environment(self, **variables: str) -> dict[str, str]:
        """The variables that each tool's documentation asks for, with the stand-in's address."""
        uri = self.sink.uri
        own = {
            "ours": {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": self.experiment},
            "mlflow": {"MLFLOW_TRACKING_URI": uri},
            "langfuse": {"LANGFUSE_BASE_URL": uri, "LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-1"},
            "logfire": {"LOGFIRE_BASE_URL": uri, "LOGFIRE_TOKEN": "pylf_v1_us_compared"},
            "langsmith": {"LANGSMITH_ENDPOINT": uri, "LANGSMITH_API_KEY": "lsv2-1", "LANGSMITH_TRACING": "true"},
            "datadog": {"DD_TRACE_AGENT_URL": uri, "DD_SERVICE": "compared", **DATADOG},
        }[self.tool]
        if self.mode == "options" or (self.mode == "route" and self.tool != "mlflow"):
            own |= OPTIONS.get(self.tool, {})
        names = {"COMPARE_TOOL": self.tool, "COMPARE_MODE": self.mode, "COMPARE_EXPERIMENT": self.experiment}
        cleaned = clean_environment(**own, **names, **variables)
        cleaned.pop("MLFLOW_MIDDLEWARE_INCLUDE", None)  # the default, here
        return cleaned

    @contextmanager
    def app(self, *options: str, **variables: str) -> Iterator[tuple[Process, str]]:
        """The command of the app: uvicorn, or gunicorn if that is the first option."""
        port = free_port()
        served = ["uvicorn", "--port", str(port), "--log-level", "warning", "tests.comparison.app:app"]
        if options:
            served = [*options, "--bind", f"127.0.0.1:{port}", "tests.comparison.app:app"]
        command = [sys.executable, "-m", *served]
        if self.tool == "datadog":
            command = [str(Path(sys.executable).with_name("ddtrace-run")), *command]
        with Process(command, self.environment(**variables), self.folder / "app.log") as process:
            process.wait_until_up(f"http://127.0.0.1:{port}/health")
            yield process, f"http://127.0.0.1:{port}"

    def spans(self) -> list[Span]:
        """Return the data that has arrived."""
        if isinstance(self.sink, Sink):
            return list(READERS[self.tool](list(self.sink.asked)))
        return list(mlflow(_traces(self.sink.uri, self.experiment)))

    def settled(self, quiet: float = QUIET, deadline: float = 60.0) -> list[Span]:
        """Return the data that has arrived once nothing more comes."""
        end, last, since = time.monotonic() + deadline, -1, time.monotonic()
        while time.monotonic() < end:
            spans = self.spans()
            if len(spans) != last:
                last, since = len(spans), time.monotonic()
            elif time.monotonic() - since > quiet:
                break
            time.sleep(0.5)
        return self.spans()

    def close(self) -> None:
        """Close the destination."""
        self.sink.stop()


DATADOG = {
    "DD_TRACE_API_VERSION": "v0.4",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CRASHTRACKING_ENABLED": "false",
}
OPTIONS: dict[str, dict[str, str]] = {
    "mlflow": {"MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false"},
    "datadog": {
        "DD_LLMOBS_ENABLED": "1",
        "DD_LLMOBS_ML_APP": "compared",
        "DD_TRACE_HEADER_TAGS": "x-session-id:session.id,x-user-id:usr.id,x-request-id:request_id,x-plain:plain",
        "DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0, "resource": "GET /health"}]',
    },
}
"""Further variables of each tool in the modes ``options`` and ``route``; other options are keywords in ``tools``.

MLflow's, which makes spans of FastAPI's own telemetry, is not combined with its decorators.
"""


def _traces(uri: str, experiment: str) -> list[Any]:
    client.set_tracking_uri(uri)
    answer = requests.get(
        f"{uri}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": experiment}, timeout=30
    )
    if not answer.ok:
        return []
    found = answer.json()["experiment"]["experiment_id"]
    return list(client.search_traces(locations=[found], max_results=500, return_type="list"))


def asked(lab: Lab) -> tuple[Run, dict[str, str]]:
    """Make all requests; return what arrived of each, and where the votes went."""
    with lab.app() as (_, url):
        made = make_all(url)
        spans = lab.settled()
        seen = {
            name: Seen(each, [span for span in spans if each.began - 0.02 <= span.start < each.ended])
            for name, each in made.items()
        }
        return seen, _voted(lab, url, seen["chat"])


def _voted(lab: Lab, url: str, chat: Seen) -> dict[str, str]:
    """How a vote on the chat's trace is accepted: by a route of the tool, by code in the app's route, or not at all."""
    trace_id = chat.made.headers.get("x-trace") or chat.made.headers.get("x-mlflow-trace-id", "")
    if not trace_id:
        return {"vote": "no"}
    if vote_by_package(url, trace_id) == 200:
        return {"vote": "yes"}
    if isinstance(lab.sink, Sink):
        before = len(lab.sink.asked)
        vote(url, trace_id)
        lab.settled(3.0, 10.0)
        came = any(b"vote" in each.body for each in lab.sink.asked[before:])
    else:
        vote(url, trace_id)
        came = any(trace.info.assessments for trace in _traces(lab.sink.uri, lab.experiment))
    return {"vote": "route" if came else "no"}
