"""Spans that outlive their root, traces that stay open for long, and more traces than MLflow's own buffer holds."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import Trace

from tests.conftest import Traces
from tests.servers import PATIENT, ROOT, MLflowServer, clean_environment, eventually
from tests.talking import Talking

Run = Callable[..., tuple[Traces, str]]


@pytest.fixture
def run(server: MLflowServer) -> Run:
    """Run one function of `tests.apps.late_spans` to its end; return its traces and its output."""

    def start(function: str, **variables: str) -> tuple[Traces, str]:
        experiment = f"{function}-{uuid.uuid4().hex}"
        environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, **PATIENT, **variables)
        done = subprocess.run(
            [sys.executable, "-m", "tests.apps.late_spans", experiment, function],
            env=environment,
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return Traces(server.uri, experiment), done.stdout

    return start


def tree(trace: Trace) -> dict[str, str | None]:
    """Return span name -> its parent's name."""
    names = {span.span_id: span.name for span in trace.data.spans}
    return {span.name: names.get(span.parent_id) for span in trace.data.spans}


@pytest.mark.parametrize("function", ["soon", "much_later"])
def test_a_span_that_ends_after_its_root_is_added(run: Run, function: str) -> None:
    """Whether it ends before or after its trace was sent, it is stored, and the trace keeps its other values."""
    traces, _ = run(function)

    (trace,) = traces.search()
    assert tree(trace) == {"root": None, "late": "root", "later": "late"}
    by_name = {span.name: span for span in trace.data.spans}
    assert by_name["late"].outputs == "done"
    assert by_name["later"].inputs == {"seen": True}
    assert by_name["root"].outputs == {"answer": "!"}
    assert (str(trace.info.state), trace.info.tags["plan"]) == ("OK", "pro")
    assert json.loads(trace.info.trace_metadata["mlflow.trace.sizeStats"])["num_spans"] == 3


def test_a_span_that_never_ends_delays_nothing(server: MLflowServer, tmp_path: Path) -> None:
    """Its trace is stored while the process runs on, complete except for that span, and so are later traces."""
    experiment = f"never-{uuid.uuid4().hex}"
    command = [sys.executable, "-m", "tests.apps.late_spans", experiment, "never"]
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri)
    traces = Traces(server.uri, experiment)
    with Talking(command, environment, tmp_path / "log") as process:

        def stored() -> list[Trace]:
            found = [trace for trace in traces.search() if "mlflow.traceName" in trace.info.tags]
            return found if len(found) == 4 else []

        found = eventually(stored, "four traces", pause=0.5)
        assert not process.ended()
        assert process.end() == 0
    trees = {trace.info.tags["mlflow.traceName"]: tree(trace) for trace in found}
    assert trees["root"] == {"root": None, "ends": "root"}
    assert {str(trace.info.state) for trace in found} == {"OK"}


def test_a_span_that_never_ends_does_not_cost_the_trace_at_exit(run: Run) -> None:
    """The trace of a process that ends with an open span is stored."""
    traces, _ = run("never_at_exit")

    (trace,) = traces.search()
    assert tree(trace) == {"root": None}
    assert str(trace.info.state) == "OK"


@pytest.mark.heavy
def test_more_open_traces_than_mlflows_buffer_holds(run: Run) -> None:
    """1,100 traces that are open at the same time are all stored, with their spans."""
    traces, _ = run("many")

    found = traces.search(limit=2000)
    assert {trace.info.tags["mlflow.traceName"] for trace in found} == {str(number) for number in range(1100)}
    assert {len(trace.data.spans) for trace in found} == {2}


@pytest.mark.once
def test_the_limits_of_mlflows_buffer_evict_nothing(run: Run) -> None:
    """Traces that are open for longer than its TTL, and more than its size, are stored whole."""
    traces, _ = run("slow", MLFLOW_TRACE_BUFFER_TTL_SECONDS="1", MLFLOW_TRACE_BUFFER_MAX_SIZE="10")

    spans = {trace.info.tags["mlflow.traceName"]: len(trace.data.spans) for trace in traces.search()}
    assert spans == {"last": 1, **{str(number): 2 for number in range(30)}}


def test_a_flush_makes_a_trace_readable(run: Run) -> None:
    """After ``mlflow.flush_trace_async_logging()``, ``mlflow.get_trace`` returns the whole trace."""
    _, output = run("flushed")

    seen = json.loads(output.splitlines()[-1])
    assert seen == {"spans": ["inner", "root"], "client_request_id": "request-1", "state": "OK", "last": True}
