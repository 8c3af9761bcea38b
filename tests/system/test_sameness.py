"""A stored trace has the same content as one sent by MLflow's own exporter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections import Counter
from typing import Any

import pytest
import requests
from mlflow.entities import Trace
from mlflow.entities.span import create_mlflow_span
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext

from mlflow_middleware.mlflow_bridge import otlp
from tests.apps.known import HAS_LINKS, NO_LINKS, TAKES_FILES_OUT
from tests.attachments import attachments
from tests.conftest import Traces
from tests.servers import DEADLINE, PATIENT, ROOT, MLflowServer, clean_environment, eventually

pytestmark = [pytest.mark.once, pytest.mark.xdist_group("sameness")]

KINDS = {
    "nested": 5,
    "values": 1,
    "failing": 2,
    "caught": 2,
    "events": 1,
    "linked": 1,
    "links": 2,
    "annotated": 1,
    "overridden": 1,
    "in context": 1,
    "without context": 2,
    "renamed": 2,
    "generator": 1,
    "async_generator": 1,
    "threaded": 3,
    "assessed": 1,
    "with a prompt": 1,
    "of opentelemetry": 1,
    "described": 1,
    "with attachments": 2,
    "processed": 1,
}
"""The traces of `tests.apps.rich_traces`, by name, and the number of spans of each."""

CALLS = [
    *("set_experiment", "set_tracking_uri", "reset", "disable and enable", "set_destination", "set_destination here"),
    *("configure", "flush", "provider reset"),
]
"""Calls of `tests.apps.reconfigured` between its traces."""

GIVEN = frozenset({"experiment_id", "assessment_id", "create_time", "last_update_time"})
"""Fields whose presence is compared, but not their values."""

MEASURED = GIVEN | {
    *("start_time_unix_nano", "end_time_unix_nano", "time_unix_nano", "request_time"),
    *("execution_duration", "execution_duration_ms"),
}
"""Further such fields, for a trace with measured times."""

WITHOUT = {} if HAS_LINKS else {"linked": NO_LINKS, "links": NO_LINKS}
"""Traces that the installed MLflow cannot make -> reason."""

FIXED_TIMES = {"without context"}
"""Traces with explicit times."""


of_each_kind = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.skipif(kind in WITHOUT, reason=WITHOUT.get(kind, "it is known")))
        for kind in KINDS
    ],
)


def run(server: MLflowServer, module: str, *arguments: str, **variables: str) -> None:
    """Run a script to its end against the server."""
    environment = clean_environment(MLFLOW_TRACKING_URI=server.uri, **PATIENT, **variables)
    command = [sys.executable, "-m", f"tests.apps.{module}", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


def make_prompt(server: MLflowServer, name: str) -> None:
    """Register a prompt with one version, as ``mlflow.genai.register_prompt`` does in full MLflow."""
    api = f"{server.uri}/api/2.0/mlflow"
    marked = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    text = {"key": "mlflow.prompt.text", "value": "Answer {{question}}"}
    model = {"name": name, "tags": marked}
    version = {"name": name, "source": "prompt-template", "tags": [*marked, text]}
    for what, body in (("registered-models", model), ("model-versions", version)):
        requests.post(f"{api}/{what}/create", json=body, timeout=30).raise_for_status()


@pytest.fixture(scope="module")
def both(server: MLflowServer) -> tuple[dict[str, Trace], dict[str, Trace]]:
    """The traces of one script by name: as our delivery sent them, and as MLflow's exporter did."""
    return stored_by(server, "ours"), stored_by(server, "mlflow")


def stored_by(server: MLflowServer, exporter: str) -> dict[str, Trace]:
    """Run the script; again if MLflow's exporter has lost traces, as it does on a busy machine."""
    traces = traces_of(server, exporter)
    for _ in range(4 if exporter == "mlflow" else 0):
        try:
            wait_for_all(traces, 20)
            break
        except AssertionError:
            traces = traces_of(server, exporter)
    wait_for_all(traces, DEADLINE)
    return {str(trace.info.tags["mlflow.traceName"]): trace for trace in traces.search()}


def traces_of(server: MLflowServer, exporter: str) -> Traces:
    """Run the script once, in an experiment of its own."""
    experiment = f"same-{exporter}-{uuid.uuid4().hex}"
    make_prompt(server, experiment)
    run(server, "rich_traces", experiment, exporter)
    return Traces(server.uri, experiment)


def wait_for_all(traces: Traces, deadline: float) -> None:
    """Wait until each kind is stored."""
    count = len(KINDS) - len(WITHOUT)
    eventually(lambda: len(traces.search()) >= count, f"{count} traces", deadline, pause=0.5)


def plain(traces: dict[str, Trace], kind: str) -> dict[str, Any]:
    """Return one of the traces as a dictionary, with placeholders for ids and measured times."""
    trace = traces[kind]
    text = trace.to_json()
    for name, other in traces.items():
        for span in other.data.spans:
            for encoded in (span.to_dict()["span_id"], span.span_id):
                text = text.replace(encoded, f"<span {span.name} of {name}>")
        for encoded in (other.info.trace_id.removeprefix("tr-"), other.data.spans[0].to_dict()["trace_id"]):
            text = text.replace(encoded, f"<trace {name}>")
    text = text.replace(f"/{trace.info.experiment_id}/", "/<experiment>/")
    text = re.sub(r"same-(ours|mlflow)-[0-9a-f]{32}", "<name>", text)
    text = re.sub(r"mlflow-attachment://[0-9a-f-]+", "<attachment>", text)
    whole: dict[str, Any] = json.loads(text)
    forget(whole, MEASURED if kind not in FIXED_TIMES else GIVEN)
    whole["data"]["spans"].sort(key=lambda span: str(span["span_id"]))
    return whole


def forget(value: Any, keys: frozenset[str]) -> None:
    """Replace the values of these keys, wherever they are, by whether they are present."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key in keys:
            value[key] = None if inner is None else "<some>"
        elif isinstance(inner, dict | list):
            forget(inner, keys)


def size_stats(info: dict[str, Any]) -> dict[str, int]:
    """Return the sizes of a trace, and remove them from its info."""
    stats = json.loads(info["trace_metadata"].pop("mlflow.trace.sizeStats"))
    return {**stats, "total": int(info["trace_metadata"].pop("mlflow.trace.sizeBytes"))}


def test_the_same_traces_are_stored(both: tuple[dict[str, Trace], dict[str, Trace]]) -> None:
    """No trace is missing, none is stored that MLflow would not store, and each has all its spans."""
    ours, mlflows = both

    expected = {name: spans for name, spans in KINDS.items() if name not in WITHOUT}
    assert {name: len(trace.data.spans) for name, trace in ours.items()} == expected
    assert {name: len(trace.data.spans) for name, trace in mlflows.items()} == expected


@of_each_kind
def test_its_info_is_the_same(both: tuple[dict[str, Trace], dict[str, Trace]], kind: str) -> None:
    """State, previews, tags, metadata, assessments, client request id and duration of a trace are as MLflow's."""
    ours, mlflows = (plain(traces, kind)["info"] for traces in both)
    sizes, mlflow_sizes = size_stats(ours), size_stats(mlflows)

    assert ours == mlflows
    assert sizes == pytest.approx(mlflow_sizes, abs=64)


@of_each_kind
def test_its_spans_are_the_same(both: tuple[dict[str, Trace], dict[str, Trace]], kind: str) -> None:
    """Names, types, parents, status, attributes, events and links of all spans are as MLflow's."""
    ours, mlflows = (plain(traces, kind)["data"]["spans"] for traces in both)

    assert ours == mlflows


def test_the_compared_values_exist(both: tuple[dict[str, Trace], dict[str, Trace]]) -> None:
    """A field that both traces lack proves nothing."""
    ours, _ = both
    nested = ours["nested"].info
    assert json.loads(nested.trace_metadata["mlflow.trace.tokenUsage"])["total_tokens"] == 307
    assert json.loads(nested.trace_metadata["mlflow.trace.cost"])["total_cost"] == pytest.approx(0.00042)
    annotated = ours["annotated"].info
    assert (annotated.client_request_id, annotated.tags["plan"]) == ("request-1", "pro")
    assert (annotated.request_preview, annotated.response_preview) == ("asks something", "gets something")
    assert annotated.trace_metadata["mlflow.trace.session"] == "s-1"
    assert annotated.trace_metadata["mlflow.trace.user"] == "jane"
    assert str(ours["overridden"].info.state) == "ERROR"
    assert len(ours["assessed"].info.assessments) == 3
    assert ours["without context"].info.execution_duration == 1000
    assert [event.name for event in ours["failing"].data.spans[1].events] == ["exception"]
    assert "links" in WITHOUT or len(ours["links"].data.spans[0].links) == 1
    assert "mlflow.linkedPrompts" in ours["with a prompt"].info.tags


def test_traces_are_found_by_a_linked_prompt(
    server: MLflowServer, both: tuple[dict[str, Trace], dict[str, Trace]]
) -> None:
    """The trace that used a prompt is found by that prompt."""
    trace = both[0]["with a prompt"]
    (prompt,) = json.loads(trace.info.tags["mlflow.linkedPrompts"])

    found = Traces(server.uri, prompt["name"]).search(f"prompt = '{prompt['name']}/1'")

    assert [each.info.trace_id for each in found] == [trace.info.trace_id]


def test_attachments_are_stored(both: tuple[dict[str, Trace], dict[str, Trace]]) -> None:
    """Files in inputs and outputs, also those that MLflow extracts from chat messages, are kept beside the trace."""
    ours, mlflows = (attachments(traces["with attachments"]) for traces in both)

    assert [len(content) for content in mlflows] == ([21, 5128] if TAKES_FILES_OUT else [21])
    assert ours == mlflows


def test_a_link_of_opentelemetry_is_sent() -> None:
    """Whether MLflow knows links or not: a request is linked to its caller's span like that."""
    caller = SpanContext(2**127 + 1, 2**63 + 1, is_remote=True)
    otel = TracerProvider().get_tracer("tests").start_span("linked", links=[Link(caller)])
    span = create_mlflow_span(otel, "tr-1")
    span.end()

    sent = ExportTraceServiceRequest.FromString(otlp.spans_to_otlp([span]))

    (link,) = sent.resource_spans[0].scope_spans[0].spans[0].links
    assert (int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big")) == (2**127 + 1, 2**63 + 1)


def test_values_that_cannot_be_encoded_are_replaced(server: MLflowServer) -> None:
    """Numbers and characters that protobuf refuses cost their own value, and neither their span nor the trace."""
    experiment = f"refused-values-{uuid.uuid4().hex}"
    run(server, "refused_values", experiment)

    (trace,) = Traces(server.uri, experiment).search()

    root, child = sorted(trace.data.spans, key=lambda span: span.parent_id is not None)
    assert (root.name, child.name) == ("half a fox ?", "child")
    assert root.attributes.items() >= {"half ?": "?", "big": str(2**70), "list": [str(-(2**64)), {"?": 1}]}.items()
    assert root.inputs == {"question": "half a fox ?"}
    assert [event.name for event in root.events] == ["exception"]
    assert trace.info.tags["half"] == "?"
    assert trace.info.trace_metadata["half"] == "?"
    assert trace.info.client_request_id == "request-1"


def test_each_experiment_gets_its_own_traces(server: MLflowServer) -> None:
    """Traces of one process reach the experiment that was chosen when they began, in whichever way."""
    names = [f"experiment-{number}-{uuid.uuid4().hex}" for number in range(4)]
    ids = [create_experiment(server, name) for name in names]
    run(server, "experiments", *names[:2], *ids[2:], MLFLOW_EXPERIMENT_NAME=names[3])

    stored = [sorted(trace.info.tags["mlflow.traceName"] for trace in Traces(server.uri, n).search()) for n in names]

    assert stored == [
        ["first", "first, ended later", "first, once more"],
        ["second"],
        ["by destination", "by destination of the context", "by id"],
        ["of the environment"],
    ]


def create_experiment(server: MLflowServer, name: str) -> str:
    """Make an experiment; return its id."""
    answer = requests.post(f"{server.uri}/api/2.0/mlflow/experiments/create", json={"name": name}, timeout=30)
    return str(answer.json()["experiment_id"])


@pytest.fixture(scope="module")
def reconfigured(server: MLflowServer) -> dict[str, int]:
    """Count the traces of each name that `tests.apps.reconfigured` has on the server."""
    experiment = f"reconfigured-{uuid.uuid4().hex}"
    run(server, "reconfigured", experiment, MLFLOW_EXPERIMENT_NAME=experiment)
    return Counter(trace.info.tags["mlflow.traceName"] for trace in Traces(server.uri, experiment).search())


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_traces_survive_a_reconfiguration(reconfigured: dict[str, int], call: str) -> None:
    """Traces that ended before such a call, that were open during it, and that began after it are all stored, once."""
    assert [reconfigured.get(f"{when} {call}", 0) for when in ("before", "across", "after")] == [1, 1, 1]
