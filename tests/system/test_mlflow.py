"""Values that apps set through MLflow's own functions are stored, can be read again, and agree with each other."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import requests
from mlflow.entities import Span, Trace
from mlflow.version import IS_TRACING_SDK_ONLY

from mlflow_middleware import feedback, traces
from mlflow_middleware.feedback import Feedback
from tests.apps.odd_values import HALF, LONG, NUL, VALUES, WAYS, arrays
from tests.conftest import Traces
from tests.servers import PATIENT, ROOT, MLflowServer, clean_environment
from tests.unit.encoded import sent_traces

pytestmark = [pytest.mark.once, pytest.mark.xdist_group("mlflow")]  # each app runs once

Stored = dict[str, Trace]


def run(server: MLflowServer, module: str, experiment: str, *arguments: str) -> tuple[Stored, str]:
    """Run an app; return its traces by their request ids, and its output."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.apps.{module}", experiment, *arguments],
        env=clean_environment(MLFLOW_TRACKING_URI=server.uri, **PATIENT),
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "tracing failed" not in done.stderr
    found = Traces(server.uri, experiment).search()  # one unreadable trace makes this fail
    by_id = {str(each.info.client_request_id or each.info.tags["client_request_id"]): each for each in found}
    return by_id, done.stdout


def root_of(trace: Trace) -> Span:
    (root,) = (span for span in trace.data.spans if span.parent_id is None)
    return root


def child_of(trace: Trace) -> Span:
    (child,) = (span for span in trace.data.spans if span.parent_id is not None)
    return child


# --- values that JSON, protobuf or a database cannot hold ---


@pytest.fixture(scope="module")
def stored(server: MLflowServer) -> Stored:
    """The traces of `tests.apps.odd_values`."""
    return run(server, "odd_values", f"odd-{uuid.uuid4().hex}")[0]


def request_id(way: str) -> str:
    return way.replace(" ", "-").replace(",", "")


def test_all_of_them_are_found_by_one_search(stored: Stored) -> None:
    """No trace is lost, and none makes the search of its experiment fail."""
    assert stored.keys() == {request_id(way) for way in WAYS} | {f"own {way}" for way in WAYS}


def unfolded(value: Any) -> Any:
    """Return a value whose parts that became text are parsed again."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        return unfolded(json.loads(value))
    if isinstance(value, dict):
        return {key: unfolded(inner) for key, inner in value.items()}
    return [unfolded(inner) for inner in value] if isinstance(value, list) else value


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def filled(stored: Stored, way: str) -> Iterator[Any]:
    """Return the values that one function has set: in a request and outside, as inputs, outputs and an attribute."""
    for key in (request_id(way), f"own {way}"):
        span = child_of(stored[key]) if way.startswith("child") else root_of(stored[key])
        if key.startswith("own"):
            assert len(stored[key].data.spans) == (2 if way.startswith("child") else 1)
        yield from (span.inputs, span.outputs, span.attributes["odd"])


EXPECTED: dict[str, Any] = {
    **{name: VALUES[name] for name in ("nested 20", "nested 26", "nested 27", "nested 30", "text in text", "long")},
    **{f"arrays {levels}": arrays(levels) for levels in (33, 400, 3000)},
    "half": {HALF.replace("\ud83e", "?"): HALF.replace("\ud83e", "?")},
    "half, alone": HALF.replace("\ud83e", "?"),
    "nul": VALUES["nul"],
    "nul, alone": NUL,
    "big": {"n": str(2**70), "m": [str(-(2**64)), str(2**63), 2**63 - 1]},
    "big, alone": str(2**70),
    "big text": VALUES["big text"],
    "digits": VALUES["digits"],
    "bytes": {"b": "b'\\x00\\xff'"},
}
"""The expected result for each value without a test of its own."""


@pytest.mark.parametrize("where", ["child", "root"])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_value_is_read_back(stored: Stored, where: str, name: str) -> None:
    """It is unchanged, or a part that a server cannot hold is text."""
    assert list(filled(stored, f"{where} {name}")) == [EXPECTED[name]] * 6


@pytest.mark.parametrize("where", ["child", "root"])
@pytest.mark.parametrize("name", ["nested 31", "nested 33", "nested 34", "nested 100", "nested 400"])
def test_deep_values_are_read_back_as_text(stored: Stored, where: str, name: str) -> None:
    """No search fails because of more than 32 levels, and nothing of them is lost."""
    for value in filled(stored, f"{where} {name}"):
        assert 20 <= depth(value) <= 30
        assert unfolded(value) == VALUES[name]


@pytest.mark.parametrize("where", ["child", "root"])
def test_deep_objects_of_other_kinds_are_read_back(stored: Stored, where: str) -> None:
    """Objects of pydantic and dataclasses, also with half a surrogate pair inside."""
    for value in filled(stored, f"{where} model"):
        assert unfolded(value) == {"question": "?", "deep": VALUES["model"].deep}
    for value in filled(stored, f"{where} dataclass"):
        assert unfolded(value) == {"x": 1, "inner": VALUES["dataclass"].inner}
    for value in filled(stored, f"{where} half, nested"):
        assert 20 <= depth(value) <= 30
        assert "half a fox" in str(value)


@pytest.mark.parametrize("where", ["child", "root"])
def test_nan_and_infinity_are_read_back(stored: Stored, where: str) -> None:
    """In Python's notation."""
    for value in filled(stored, f"{where} not a number"):
        assert [str(each) for each in value["n"]] == ["nan", "inf", "-inf"]


@pytest.mark.parametrize("by", ["", "own "])
def test_the_other_parts_of_a_span_are_read_back(stored: Stored, by: str) -> None:
    """Its name, events, exceptions and identity."""
    half, nul = HALF.replace("\ud83e", "?"), NUL.replace("\0", "\ufffd")
    assert child_of(stored[f"{by}name"]).name == f"{half} {nul}"
    odd, lists = child_of(stored[f"{by}events"]).events
    assert odd.name == f"{half} event"
    assert {**odd.attributes, "not a number": "nan"} == {
        half: half,
        "nul": NUL,
        "big": str(2**70),
        "not a number": "nan",
        "long": LONG,
    }
    assert str(odd.attributes["not a number"]) == "nan"
    assert {key: list(each) for key, each in lists.attributes.items()} == {
        "texts": [half, NUL],
        "big": [str(2**70), 1],
    }
    for span in stored[f"{by}exceptions"].data.spans:
        (event,) = span.events
        assert event.attributes["exception.message"] == f"{half} {NUL} {LONG}"
    for span in stored[f"{by}session"].data.spans:
        assert (span.attributes["session.id"], span.attributes["gen_ai.conversation.id"]) == ("s" * 250, "c" * 250)
    assert child_of(stored[f"{by}usage"]).attributes["mlflow.chat.tokenUsage"] == {}


@pytest.mark.parametrize("by", ["", "own "])
def test_a_traces_values_are_read_back(stored: Stored, by: str) -> None:
    """Tags, metadata and previews, truncated as in MLflow."""
    half, nul = HALF.replace("\ud83e", "?"), NUL.replace("\0", "\ufffd")
    info = stored[f"{by}tags"].info
    for given, longest in ((info.tags, 4096), (info.trace_metadata, 250)):
        assert (given["half"], given["nul"], given["number"]) == (half, nul, "7")
        assert given["long"] == LONG[:longest]
        assert given["deep"].startswith("{'deeper': [{'deeper'")
        assert given["k" * 250] == "long key"
    info = stored[f"{by}previews"].info
    for preview in (info.request_preview, info.response_preview):
        assert preview.startswith(f"{half} {nul} tttt")
        assert len(preview) == 1000
    info = stored["own identity" if by else "identity"].info
    assert info.trace_metadata["mlflow.trace.session"] == "s" * 250
    assert info.trace_metadata["mlflow.trace.user"] == "u" * 250


@pytest.mark.parametrize("by", ["", "own "])
def test_assessments_are_read_back(stored: Stored, by: str) -> None:
    """Feedback and expectations of any value, with any reason."""
    half, nul = HALF.replace("\ud83e", "?"), NUL.replace("\0", "\ufffd")
    found = stored[f"{by}feedback"].info.assessments
    for values in (
        {each.name: each.feedback.value for each in found if each.feedback},
        {each.name: each.expectation.value for each in found if each.expectation},
    ):
        assert values.keys() == {"deep", "big", "nan", "half", "nul"}
        assert unfolded(values["deep"]) == VALUES["model"].deep
        assert (values["big"], values["nan"], values["nul"]) == (str(2**70), "NaN", nul)
        assert values["half"] in (half, HALF.replace("\ud83e", "\ufffd"))
    assert {each.rationale for each in found if each.feedback} == {f"{half} {nul}"}


# --- values that must agree ---


@pytest.fixture(scope="module")
def agreeing(server: MLflowServer) -> Stored:
    """The traces of `tests.apps.agreeing`."""
    return run(server, "agreeing", f"agreeing-{uuid.uuid4().hex}")[0]


@pytest.mark.parametrize(
    ("way", "late", "afterwards"),
    [
        ("assessed", 0, []),
        ("soon late", 1, []),
        ("late", 1, []),
        ("assessed afterwards", 1, ["afterwards"]),
        ("late and again", 2, ["afterwards"]),
    ],
)
def test_assessments_are_stored_once(agreeing: Stored, way: str, late: int, afterwards: list[str]) -> None:
    """Also if the info is sent again, for a span that ends late or an assessment that comes late."""
    trace = agreeing[request_id(way)]

    assert Counter(each.name for each in trace.info.assessments) == Counter(["right", "expected", "score", *afterwards])
    assert {each.valid for each in trace.info.assessments} <= {True, None}
    assert Counter(span.name for span in trace.data.spans)["late"] == late


def status_of(trace: Trace) -> tuple[str, str]:
    return str(trace.info.state), str(root_of(trace).status.status_code.value)


@pytest.mark.parametrize(
    ("way", "state", "status"),
    [
        ("state OK", "OK", "OK"),
        ("state ERROR", "ERROR", "ERROR"),
        ("span OK", "OK", "OK"),
        ("span and state", "OK", "ERROR"),
        ("sampled ERROR", "ERROR", "ERROR"),
    ],
)
def test_the_outcome_of_a_trace(agreeing: Stored, way: str, state: str, status: str) -> None:
    """The app's status beats that of the answer, for the trace and its root; two different ones both stay."""
    assert status_of(agreeing[request_id(way)]) == (state, status)


def test_a_trace_that_the_app_marks_as_an_error_is_kept(agreeing: Stored) -> None:
    """At ``sample_ratio=0`` as well; and no other trace is."""
    assert [name for name in agreeing if name.startswith("sampled")] == ["sampled-ERROR"]


def test_the_apps_request_id_is_in_column_and_tag(agreeing: Stored) -> None:
    """It is found in either; one that is too long for the column is in the tag, and a tag of the app's stays."""
    for key, column, tag in (
        ("of-the-app", "of-the-app", "of-the-app"),
        ("i" * 60, None, "i" * 60),
        ("of the app", "of the app", "its own"),
    ):
        info = agreeing[key].info
        assert (info.client_request_id or None, info.tags["client_request_id"]) == (column, tag)


def test_the_other_values_of_a_trace(agreeing: Stored) -> None:
    """Metadata, model, session and user, and tags set by the trace's id."""
    info = agreeing["metadata"].info
    known = {key: info.trace_metadata[key] for key in ("kind", "mlflow.modelId")}
    assert known == {"kind": "odd", "mlflow.modelId": "m-7"}
    for given in (info.tags, info.trace_metadata):
        assert (given["mlflow.trace.session"], given["mlflow.trace.user"]) == ("s-7", "u-7")
    assert root_of(agreeing["span-tags"]).attributes["first"] == "yes"
    assert agreeing["span-tags"].info.tags["second"] == "yes"


@pytest.mark.parametrize(
    ("way", "names"),
    [
        ("reset", {"before", "after"}),
        ("generators", {"numbers", "in a generator"}),
        ("contexts", {"in context"}),
    ],
)
def test_spans_nest_however_they_are_opened(agreeing: Stored, way: str, names: set[str]) -> None:
    """Inside generators, in MLflow's contexts, and while tracing is reset."""
    assert {span.name for span in agreeing[way].data.spans if span.parent_id is not None} == names


# --- links to runs and models ---


@pytest.mark.skipif(IS_TRACING_SDK_ONLY, reason="the slim package has neither runs nor models")
@pytest.mark.parametrize("delivery", ["auto", "mlflow"])
def test_a_run_or_model_that_begins_inside_is_linked(server: MLflowServer, delivery: str) -> None:
    """As if the request's root had started inside; the app's own values have priority."""
    experiment = f"linked-{uuid.uuid4().hex}"
    stored, output = run(server, "linked", experiment, delivery)
    ids = json.loads(output.splitlines()[-1])
    assert "other-experiment" not in stored  # it is in its run's experiment
    elsewhere = Traces(server.uri, f"{experiment}-other").search()
    linked = {str(each.info.client_request_id): each.info.trace_metadata for each in (*stored.values(), *elsewhere)}
    for way in ("run", "run with child", "nested runs", "own word", "other experiment"):
        assert linked[request_id(way)]["mlflow.sourceRun"] == ids[way]
    assert linked["model"]["mlflow.modelId"] == ids["model"]
    assert not {"mlflow.sourceRun", "mlflow.modelId"} & linked["nothing"].keys()


# --- traces that are read at once ---


@pytest.fixture
def experiment_id(server: MLflowServer) -> str:
    """An empty experiment, on the server that MLflow then uses."""
    named = {"name": f"half-{uuid.uuid4().hex}"}
    answer = requests.post(f"{server.uri}/api/2.0/mlflow/experiments/create", json=named, timeout=60)
    mlflow.set_tracking_uri(server.uri)
    return str(answer.json()["experiment_id"])


def store_spans(experiment_id: str, otlp: bytes | None) -> None:
    """Store spans like a collector does."""
    headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": experiment_id}
    requests.post(f"{mlflow.get_tracking_uri()}/v1/traces", data=otlp, headers=headers, timeout=60).raise_for_status()


@pytest.fixture
def half_stored(server: MLflowServer, experiment_id: str) -> tuple[str, Callable[[], None]]:
    """A trace whose info is stored, and a function that stores its spans."""
    with sent_traces() as sent, mlflow.start_span("whole") as span:
        pass
    info = sent[0].trace_info
    info["trace_location"]["mlflow_experiment"]["experiment_id"] = experiment_id
    answer = requests.post(f"{server.uri}/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}, timeout=60)
    answer.raise_for_status()
    return span.trace_id, lambda: store_spans(experiment_id, sent[0].otlp)


def test_a_trace_is_waited_for_until_it_is_whole(
    half_stored: tuple[str, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not count as corrupted while the server has its info only; a vote on it is kept meanwhile."""
    trace_id, complete = half_stored
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    assert traces.get(trace_id, wait=0) is None
    feedback.log(Feedback(trace_id=trace_id, value=True), user_id="jane")
    later = threading.Timer(0.5, complete)
    later.start()

    trace = traces.get(trace_id, wait=60)

    later.join()
    assert trace is not None
    assert [span.name for span in trace.data.spans] == ["whole"]
    assert [each.feedback.value for each in trace.info.assessments] == [True]


def test_an_old_trace_is_not_waited_for(experiment_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it came through a Collector, its info never comes, and a script that reads hundreds would wait for each."""
    with sent_traces() as sent:
        began = time.time_ns() - 120 * 10**9
        span = mlflow.start_span_no_context("old", start_time_ns=began)
        span.end(end_time_ns=began + 10**9)
    store_spans(experiment_id, sent[0].otlp)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    clock = SimpleNamespace(time=time.time, sleep=lambda _: pytest.fail("it waits"))
    monkeypatch.setattr("mlflow_middleware.delivery.stored.time", clock)

    trace = traces.get(span.trace_id)

    assert trace is not None
    assert [span.name for span in trace.data.spans] == ["old"]


def test_the_wait_for_a_missing_trace_is_bounded(server: MLflowServer) -> None:
    """Its end is no error; an invalid id is rejected."""
    mlflow.set_tracking_uri(server.uri)
    assert traces.get(f"tr-{uuid.uuid4().hex}", wait=0.2) is None
    with pytest.raises(ValueError, match="must start with 'tr-'"):
        traces.get("req-1")
    with pytest.raises(ValueError, match="0 or more seconds"):
        traces.get(f"tr-{uuid.uuid4().hex}", wait=-1)
