"""Assertions on an app's corner cases that hold for every protocol and framework."""

from __future__ import annotations

import statistics

import requests
from mlflow.entities import Span, Trace

from tests import raw
from tests.conftest import RunningApp

VARIABLES = {"MLFLOW_TRACE_BUFFER_TTL_SECONDS": "1", "MLFLOW_TRACE_BUFFER_MAX_SIZE": "3", "MALLOC_ARENA_MAX": "1"}
"""With these, MLflow's own buffer would keep a trace for a second: a stream of seconds stands for one of hours.
No thread has an arena of memory of its own, so that a process's memory can be compared."""


def root_of(trace: Trace) -> Span:
    """Return a trace's root."""
    return next(span for span in trace.data.spans if span.parent_id is None)


def names_of(trace: Trace) -> set[str]:
    """Return the names of a trace's spans, without its root."""
    return {span.name for span in trace.data.spans if span.parent_id is not None}


def check_long_streams(app: RunningApp, request_id: str) -> None:
    """Check that five concurrent streams, longer than `VARIABLES`, are stored whole with the right statistics."""
    clients = [raw.connect(app) for _ in range(5)]
    for number, client in enumerate(clients):
        client.sendall(raw.head_of("/tokens/50/2500", f"X-Request-ID: {request_id}-{number}"))
    for client in clients:
        with client:
            assert raw.rest(client).count(b"data: ") == 50

    sent = [f"token {number}" for number in range(50)]
    for trace in app.traces.wait(f"tags.client_request_id LIKE '{request_id}-%'", 5):
        attributes = root_of(trace).attributes
        assert root_of(trace).outputs == sent
        assert (names_of(trace), trace.info.tags["token"]) == ({"token 0", "token 49"}, "49")
        assert attributes["http.response.chunks"] == 50
        assert attributes["http.response.body.size"] == sum(len(f"data: {token}\n\n") for token in sent)
        assert attributes["http.response.time_to_last_byte"] - attributes["http.response.time_to_first_byte"] > 2
        assert trace.info.execution_duration > 2000
        assert (str(trace.info.state), "http.client_disconnected" in attributes) == ("OK", False)


def check_stopped(trace: Trace) -> None:
    """Check that the trace of a client that disconnects after its third token has these three, and their count."""
    root = root_of(trace)
    sent = [f"token {number}" for number in range(len(root.outputs))]
    assert root.outputs == sent
    assert 3 <= len(sent) < 1000
    assert root.attributes["http.client_disconnected"] is True
    assert root.attributes["http.response.chunks"] == len(sent)
    assert root.attributes["http.response.body.size"] == sum(len(f"data: {token}\n\n") for token in sent)
    assert str(trace.info.state) == "OK"


def check_afterwards(app: RunningApp, path: str, request_id: str, state: str = "OK") -> None:
    """Check that the trace of `tests.apps.afterwards` is stored before that work is over, and complete afterwards."""
    answer = requests.get(f"{app.url}{path}", headers={"X-Request-ID": request_id}, timeout=60)
    assert answer.text == "answer"
    before = app.traces.one(request_id)
    assert (names_of(before), before.info.tags["afterwards"]) == ({"afterwards"}, "begun")
    assert (str(before.info.state), root_of(before).outputs) == ("OK", "answer")

    app.get(f"/open/{request_id}")
    (trace,) = app.traces.wait(f"tags.client_request_id = '{request_id}' AND tags.afterwards = 'done'")
    assert names_of(trace) == {"afterwards", "at last"}
    root, *children = sorted(trace.data.spans, key=lambda span: span.parent_id is not None)
    assert {child.parent_id for child in children} == {root.span_id}
    assert root.end_time_ns <= max(child.start_time_ns for child in children)
    assert (str(trace.info.state), str(root.status.status_code).endswith(state)) == (state, True)
    longest = (root.end_time_ns - root.start_time_ns) // 1_000_000 + 1
    app.traces.wait(f"tags.client_request_id = '{request_id}' AND trace.execution_time_ms <= {longest}")


def memory_for_a_gibibyte(app: RunningApp, what: str) -> int:
    """Return the extra memory of a 1 GiB upload or download over an untraced one, in KiB: the lowest of three tries."""
    grown: dict[str, list[int]] = {"/bare": [], "": []}
    for _ in range(3):
        for path, found in grown.items():
            before = raw.memory_of(app.process.pid, "VmRSS", reset_peak=True)
            if what == "upload":
                assert str(1 << 30).encode() in raw.upload(app, f"{path}/upload", 1024)
            else:
                assert raw.download(app, f"{path}/download/1024") > 1 << 30
            found.append(raw.memory_of(app.process.pid, "VmHWM") - before)
    return int(statistics.median(grown[""]) - statistics.median(grown["/bare"]))
