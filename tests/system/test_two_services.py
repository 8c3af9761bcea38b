"""A service that is called by another one: its spans are in the caller's trace, whose values stay the caller's."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import requests
from mlflow.entities import Trace

from tests.conftest import Traces
from tests.servers import MLflowServer, clean_environment, eventually, free_port, serving

BACKS = ("middleware", "handler", "handler with the middleware")
"""Ways to trace a back service: see `tests.apps.two_services`."""


@dataclass
class Services:
    """A front service and the back services that it calls.

    Attributes:
        front: Its address.
        backs: Their addresses, by the way they are traced.
        traces: The traces on the server.
    """

    front: str
    backs: dict[str, str]
    traces: Traces

    def ask(self, back: str, first: str) -> Trace:
        """Let the front call a back; return the trace with the spans of both.

        Args:
            back: How the back is traced.
            first: Which one ends first: ``front``, ``back``, or ``both`` at once.
        """
        path = "/slow" if first == "front" else "/quick"
        headers = {"X-Request-ID": uuid.uuid4().hex, "X-Session-ID": "front", "X-User-ID": "front"}
        body = {"url": self.backs[back] + path, "first": first}
        answer = requests.post(f"{self.front}/ask", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200
        found: list[Trace] = []

        def whole() -> bool:
            found[:] = self.traces.search(f"tags.client_request_id = '{headers['X-Request-ID']}'")
            return bool(found) and {"POST", "handler"} <= {span.name for span in found[0].data.spans}

        eventually(whole, "the trace with the spans of both", 60)
        assert found[0].info.trace_id == answer.headers["X-MLflow-Trace-ID"]
        return found[0]


@pytest.fixture(scope="module")
def services(server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The services, each in a process of its own, with one experiment."""
    experiment = f"services-{uuid.uuid4().hex}"
    folder = tmp_path_factory.mktemp("services")
    with ExitStack() as stack:

        def run(app: str, back: str = "") -> str:
            port = free_port()
            environment = clean_environment(
                MLFLOW_TRACKING_URI=server.uri, MLFLOW_EXPERIMENT_ID=experiment_id, APP_BACK=back
            )
            command = [sys.executable, "-m", "uvicorn", "--port", str(port), f"tests.apps.two_services:{app}"]
            return stack.enter_context(serving(command, environment, folder / f"{app} {back}.log", port))[1]

        created = requests.post(
            f"{server.uri}/api/2.0/mlflow/experiments/create", json={"name": experiment}, timeout=60
        )
        experiment_id = created.json()["experiment_id"]
        backs = {back: run("traced_back", back) for back in BACKS}
        yield Services(run("traced_front"), backs, Traces(server.uri, experiment))


@pytest.mark.parametrize("first", ["both", "front", "back"])
@pytest.mark.parametrize("back", BACKS)
def test_the_trace_stays_that_of_the_front(services: Services, back: str, first: str) -> None:
    """Its name, state, times, previews, tags and identity, whichever ends first."""
    trace = services.ask(back, first)
    info = trace.info

    assert {span.name for span in trace.data.spans} >= {"POST", "handler"}
    assert (info.tags["mlflow.traceName"], str(info.state)) == ("POST", "OK")
    assert [info.tags[f"mlflow.trace.{key}"] for key in ("session", "user")] == ["front", "front"]
    assert [info.trace_metadata[f"mlflow.trace.{key}"] for key in ("session", "user")] == ["front", "front"]
    assert info.client_request_id == info.tags["client_request_id"]
    assert info.tags["http.status_code"] == "200"
    assert info.response_preview == '{"answer": "of the front"}'
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert info.request_time == root.start_time_ns // 1_000_000
    assert not {"only", "said"} & set(info.tags)
    assert not any(key.startswith("mlflow_middleware.") for key in info.trace_metadata)
