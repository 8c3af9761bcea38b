"""Work beside a request and after it, with the examples of docs/background-work.md, read back from a server."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import requests
from mlflow.entities import Trace

from tests.conftest import Traces
from tests.servers import PATIENT, ROOT, MLflowServer, clean_environment, command_for, eventually, free_port, serving

pytestmark = pytest.mark.xdist_group("background")

TOKEN = "X-MLflow-Trace-Token"
SECRET = {"MLFLOW_MIDDLEWARE_TRACE_TOKEN_SECRET": "0123456789abcdef"}
ASKED = {"X-Session-ID": "s-1", "X-User-ID": "jane"}


class Apps:
    """Two processes of the example, as behind a load balancer, and their traces."""

    def __init__(self, server: MLflowServer, folder: Path, stack: ExitStack) -> None:
        self.experiment = f"background-{uuid.uuid4().hex}"
        self.traces = Traces(server.uri, self.experiment)
        self.variables = clean_environment(
            MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_NAME=self.experiment, **PATIENT, **SECRET
        )
        self.urls = [self._start(stack, folder / f"log-{number}") for number in range(2)]

    def _start(self, stack: ExitStack, log: Path) -> str:
        port = free_port()
        command = [*command_for("fastapi", port)[:-1], "examples.background_work:app"]
        return stack.enter_context(serving(command, self.variables, log, port))[1]

    def post(self, path: str, worker: int = 0, headers: dict[str, str] | None = None, **more: Any) -> requests.Response:
        """Send one of them a request; its answer is a success."""
        answer = requests.post(self.urls[worker] + path, headers={**ASKED, **(headers or {})}, timeout=60, **more)
        assert answer.status_code == 200, answer.text
        return answer

    def trace(self, trace_id: str, *spans: str) -> Trace:
        """Return a trace, once it has all of these spans."""

        def whole() -> Trace | None:
            found = [each for each in self.traces.search() if each.info.trace_id == trace_id]
            names = {span.name for each in found for span in each.data.spans}
            return found[0] if found and set(spans) <= names and found[0].info.client_request_id else None

        return eventually(whole, f"a trace with {spans}", pause=0.25)


@pytest.fixture(scope="module")
def apps(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apps]:
    """The example in two processes."""
    pytest.importorskip("fastapi", reason="FastAPI is not installed in this environment")
    with ExitStack() as stack:
        yield Apps(server, tmp_path_factory.mktemp("background"), stack)


def parents(trace: Trace) -> dict[str, str | None]:
    """Return span name -> its parent's name."""
    names = {span.span_id: span.name for span in trace.data.spans}
    return {span.name: names.get(span.parent_id) for span in trace.data.spans}


def links(trace: Trace) -> list[tuple[str, str]]:
    """Return the link of the root."""
    return [(link.trace_id, link.span_id) for span in trace.data.spans if not span.parent_id for link in span.links]


def root_id(trace: Trace) -> str:
    """Return the id of its root."""
    (root,) = [span.span_id for span in trace.data.spans if not span.parent_id]
    return str(root)


def test_a_thread_pool_works_inside_the_request(apps: Apps) -> None:
    """Each call's span is a child of the request's root."""
    answer = apps.post("/searches", json=["tea", "milk", "rum"])

    trace = apps.trace(answer.headers["X-MLflow-Trace-ID"], "look_up")
    assert answer.json() == ["about tea", "about milk", "about rum"]
    assert parents(trace) == {"POST /searches": None, "look_up": "POST /searches"}
    assert sorted(span.inputs["query"] for span in trace.data.spans if span.name == "look_up") == ["milk", "rum", "tea"]


def test_a_background_task_is_a_trace_of_its_own(apps: Apps) -> None:
    """It has the same session, user and request id, and a link to the request's span."""
    request_id = uuid.uuid4().hex
    answer = apps.post("/documents", params={"document": "tea"}, headers={"X-Request-ID": request_id})

    found = {trace.info.tags["mlflow.traceName"]: trace for trace in apps.traces.wait(
        f"tags.client_request_id = '{request_id}'", 2
    )}  # fmt: skip
    job, asked = found["index"], found["POST /documents"]
    assert asked.info.trace_id == answer.headers["X-MLflow-Trace-ID"]
    assert parents(job) == {"index": None, "embed": "index"}
    assert links(job) == [(asked.info.trace_id, root_id(asked))]
    assert (job.data.spans[0].inputs, job.data.spans[0].outputs) == ({"document": "tea"}, 3)
    for key in ("mlflow.trace.session", "mlflow.trace.user"):
        assert job.info.trace_metadata[key] == asked.info.trace_metadata[key]
    assert job.info.client_request_id == request_id


def test_feedback_by_request_id_is_for_the_request(apps: Apps) -> None:
    """It is not for the request's job, which has the same id and is younger."""
    request_id = uuid.uuid4().hex
    answer = apps.post("/documents", params={"document": "tea"}, headers={"X-Request-ID": request_id})
    apps.traces.wait(f"tags.client_request_id = '{request_id}'", 2)
    script = """
import sys
from mlflow_middleware.feedback import store
from mlflow_middleware.feedback.body import Feedback
print(*[info["trace_id"] for info in store.find(Feedback(client_request_id=sys.argv[1], value=True))])
"""
    command = [sys.executable, "-c", script, request_id]
    done = run(command, env=apps.variables, check=True, timeout=120, capture_output=True, text=True)

    assert len(done.stdout.split()) == 2
    assert done.stdout.split()[0] == answer.headers["X-MLflow-Trace-ID"]


@pytest.mark.parametrize("worker", [0, 1])
def test_an_approval_is_added_to_the_earlier_trace(apps: Apps, worker: int) -> None:
    """In either process; the stored part of that trace stays, and the approval's own trace is linked to it."""
    proposed = apps.post("/transfers", params={"amount": 3})
    before = apps.trace(proposed.headers["X-MLflow-Trace-ID"], "plan")

    shown = {TOKEN: proposed.headers[TOKEN], "X-Session-ID": "other", "X-User-ID": "joe"}
    approved = apps.post("/approvals", worker, shown, params={"what": proposed.json()})

    own = apps.trace(approved.headers["X-MLflow-Trace-ID"])
    trace = apps.trace(before.info.trace_id, "carry_out")
    assert parents(trace) == {"POST /transfers": None, "plan": "POST /transfers", "carry_out": "POST /transfers"}
    assert parents(own) == {"POST /approvals": None}
    assert links(own) == [(trace.info.trace_id, root_id(trace))]
    unchanged = eventually(lambda: same(apps.trace(trace.info.trace_id, "carry_out"), before), "what it was", 30)
    assert unchanged.info.trace_metadata["mlflow.trace.user"] == "jane"


def same(now: Trace, before: Trace) -> Trace | None:
    """Return the trace if its earlier values have not changed."""
    known = [
        {key: value for key, value in each.info.to_dict().items() if key != "assessments"} for each in (now, before)
    ]
    return now if known[0] == known[1] else None


def test_an_approval_may_come_before_the_trace_is_stored(apps: Apps) -> None:
    """Two processes send both at about the same time; nothing of either is lost."""
    for number in range(10):
        proposed = apps.post("/transfers", params={"amount": number})
        apps.post("/approvals", 1, {TOKEN: proposed.headers[TOKEN]}, params={"what": proposed.json()})

        trace = apps.trace(proposed.headers["X-MLflow-Trace-ID"], "plan", "carry_out")
        assert trace.info.tags["mlflow.traceName"] == "POST /transfers"
        assert trace.info.trace_metadata["mlflow.trace.session"] == "s-1"
        assert str(trace.info.state) == "OK"


@pytest.mark.parametrize("token", ["", "nonsense", None])
def test_without_a_valid_token_nothing_is_added(apps: Apps, token: str | None) -> None:
    """The app answers as with one; its spans are in its own trace."""
    answer = apps.post("/approvals", headers={} if token is None else {TOKEN: token}, params={"what": "x"})

    trace = apps.trace(answer.headers["X-MLflow-Trace-ID"], "carry_out")
    assert answer.json() == "done: x"
    assert parents(trace) == {"POST /approvals": None, "carry_out": "POST /approvals"}


def test_browsers_may_read_the_token(apps: Apps) -> None:
    """On a cross-origin request it is exposed."""
    answer = apps.post("/transfers", headers={"Origin": "https://page.example"}, params={"amount": 1})

    assert TOKEN in answer.headers["Access-Control-Expose-Headers"].split(", ")


def test_a_script_is_traced_by_its_decorator_alone(apps: Apps) -> None:
    """Its trace is stored when it ends; no request started it, and it has no session."""
    run([sys.executable, "examples/nightly.py"], env=apps.variables, cwd=ROOT, check=True, timeout=120)

    (trace,) = [each for each in apps.traces.search() if each.info.tags["mlflow.traceName"] == "tidy"]
    assert parents(trace) == {"tidy": None, "delete": "tidy"}
    assert "mlflow.trace.session" not in trace.info.trace_metadata
    assert trace.data.spans[0].outputs == 60


def test_a_worker_of_a_django_project_uses_its_settings(tmp_path: Path) -> None:
    """It builds no middleware, but the session travels under the project's header name."""
    pytest.importorskip("django", reason="Django is not installed in this environment")
    script = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["mlflow_middleware.django"], MLFLOW_MIDDLEWARE={"SESSION_ID_HEADER": "X-Chat-ID"})
django.setup()
from mlflow_middleware.django import job_trace
from mlflow_middleware.testing import captured_traces
with captured_traces() as traces:
    with job_trace({"X-Chat-ID": "c-1"}), job_trace({"X-Chat-ID": "c-2"}, tags={"team": "search"}):
        pass
print([trace.info.trace_metadata["mlflow.trace.session"] for trace in traces], traces[0].info.tags["team"])
"""
    done = run(
        [sys.executable, "-c", script], env=clean_environment(), check=True, timeout=120, capture_output=True, text=True
    )

    assert done.stdout == "['c-2', 'c-1'] search\n"
