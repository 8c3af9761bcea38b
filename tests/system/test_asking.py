"""A request's trace is the same whether the app gets it from MLflow or not, and in whichever way."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

import pytest
from mlflow.entities import Trace

from tests.apps.asking import AFTERWARDS, WAYS
from tests.conftest import Traces
from tests.servers import ROOT, MLflowServer, clean_environment

OWN = {
    *("mlflow.traceRequestId", "url.path", "http.response.time_to_first_byte", "http.response.time_to_last_byte"),
    "gen_ai.response.time_to_first_chunk",
}
"""Attributes that differ from request to request."""

OWN_TAGS = {"client_request_id", "mlflow.artifactLocation"}

SIZES = {"mlflow.trace.sizeStats", "mlflow.trace.sizeBytes"}


@pytest.fixture(scope="module")
def traces(server: MLflowServer) -> dict[str, Trace]:
    """The trace of each way."""
    stored = Traces(server.uri, f"asking-{uuid.uuid4().hex}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.asking", stored.experiment],
        env=clean_environment(MLFLOW_TRACKING_URI=server.uri),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "tracing failed" not in done.stderr
    found = stored.wait("tags.plan = 'pro'", len(WAYS) + len(AFTERWARDS))
    return {str(trace.info.client_request_id).replace("-", " "): trace for trace in found}


def described(trace: Trace) -> dict[str, Any]:
    """Return all values of a trace that should be the same for all ways."""
    root = next(span for span in trace.data.spans if span.parent_id is None)
    info = trace.info
    return {
        "name": root.name,
        "type": root.span_type,
        "status": str(root.status.status_code),
        "attributes": {key: value for key, value in root.attributes.items() if key not in OWN},
        "state": str(info.state),
        "previews": (info.request_preview, info.response_preview),
        "tags": {key: value for key, value in info.tags.items() if key not in OWN_TAGS},
        "metadata": {key: value for key, value in info.trace_metadata.items() if key not in SIZES},
        "milliseconds": info.execution_duration == (root.end_time_ns - root.start_time_ns) // 1_000_000,
        "begins": info.request_time == root.start_time_ns // 1_000_000,
    }


SILENT = [way for way in WAYS if way in ("active span", "trace by its id", "threads") or way.startswith("child")]
"""Ways that leave nothing on the request's own span."""


@pytest.mark.parametrize("way", [*SILENT, *AFTERWARDS])
def test_getting_the_trace_changes_nothing(traces: dict[str, Trace], way: str) -> None:
    """Names, attributes, tags, metadata, previews and times are those of a request that does not get its trace."""
    asked, plain = described(traces[way]), described(traces["nothing"])
    if way == "annotated afterwards":
        assert asked["tags"].pop("asked") == "yes"
    if way == "failing afterwards":
        assert asked["attributes"].pop("error.type") == "ValueError"
        assert (asked["state"], asked["status"]) == ("ERROR", "SpanStatusCode.ERROR")
        asked |= {"state": plain["state"], "status": plain["status"]}
        for each in (asked, plain):
            each["attributes"].pop("mlflow.spanLogLevel", None)
    assert asked == plain


@pytest.mark.parametrize("way", ["active span", "trace by its id"])
def test_the_sizes_are_the_same(traces: dict[str, Trace], way: str) -> None:
    """As MLflow counts them; only the ids and the path differ."""
    plain, made = (json.loads(traces[each].info.trace_metadata["mlflow.trace.sizeStats"]) for each in ("nothing", way))
    assert made["num_spans"] == plain["num_spans"] == 1
    assert made["total_size_bytes"] == pytest.approx(plain["total_size_bytes"], abs=200)


def test_the_compared_values_exist(traces: dict[str, Trace]) -> None:
    """A request that does not get its trace has all of them."""
    plain = described(traces["nothing"])
    assert plain["name"] == "POST"
    assert (plain["state"], plain["milliseconds"], plain["begins"]) == ("OK", True, True)
    assert plain["previews"] == ("Où est-il?", "Là-bas. 🙂")
    assert plain["attributes"]["mlflow.spanInputs"] == {
        "messages": [{"role": "user", "content": "Où est-il?"}],
        "api_key": "[redacted]",
        "deep": [[{"n": [1, 2.5, None]}]],
        "query": {"a": "1", "token": "[redacted]"},
    }
    assert plain["metadata"]["mlflow.trace.session"] == "s-1"
    assert plain["tags"]["plan"] == "pro"


def test_the_apps_annotations_are_stored(traces: dict[str, Trace]) -> None:
    """Whichever function makes them."""
    said = {way: described(traces[way]) for way in WAYS}
    assert said["attribute"]["attributes"]["asked"] == said["opentelemetry"]["attributes"]["asked"] == "yes"
    for way in ("update", "tag by its id", "annotated"):
        assert said[way]["tags"]["asked"] == "yes"
    assert (said["annotated over"]["tags"]["tier"], said["annotated"]["tags"]["tier"]) == ("mine", "gold")
    assert said["update"]["previews"][0] == "mine"
    assert said["update"]["metadata"]["mlflow.trace.session"] == "s-9"
    assert said["inputs"]["attributes"]["mlflow.spanInputs"] == {"mine": 1}
    assert said["state"]["state"] == "ERROR"
    assert said["failing"]["attributes"]["error.type"] == "ValueError"
    assert json.loads(said["used"]["metadata"]["mlflow.trace.tokenUsage"])["total_tokens"] == 7


def test_children_are_found(traces: dict[str, Trace]) -> None:
    """A single child, one in a trace that is delivered already, and eight that begin at the same time."""
    eight = {f"child {number}" for number in range(8)}
    for way, names in (("child", {"child"}), ("child afterwards", {"child"}), ("threads", eight)):
        root, *children = sorted(traces[way].data.spans, key=lambda span: span.parent_id is not None)
        assert {span.name for span in children} == names
        assert {span.parent_id for span in children} == {root.span_id}
    for way in ("failing", "failing afterwards"):
        (event,) = traces[way].data.spans[0].events
        assert event.attributes["exception.message"] == "no"
