"""An OTLP collector, named by OpenTelemetry's variables: both it and the MLflow server get each trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from tests.collector import CollectorStandIn, attributes_of, collecting
from tests.conftest import AppRunner, RunningApp, Traces
from tests.servers import PATIENT, clean_environment, eventually


@pytest.fixture
def collector() -> Iterator[CollectorStandIn]:
    """A stand-in for one test."""
    with collecting() as server:
        yield server


def asked(app: RunningApp, request_id: str) -> str:
    """Send a request that opens a span; return its trace id."""
    answer = app.get("/sync/chats/c-1", x_request_id=request_id, x_session_id="s-1")
    assert answer.status_code == 200
    return answer.headers["X-MLflow-Trace-ID"]


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_both_get_each_trace(
    run_app: AppRunner, collector: CollectorStandIn, name: str, variable: str, request_id: str
) -> None:
    """It gets the whole trace, with our tags as attributes of its root; the log names the variable."""
    app = run_app(name, {}, **{variable: collector.uri + ("/v1/traces" if "TRACES" in variable else "")})
    trace_id = asked(app, request_id)
    trace = app.traces.one(request_id)
    spans = eventually(lambda: collector.of_trace(trace_id), "the trace at the collector")

    assert trace.info.trace_id == trace_id
    assert (
        {span.name for span in spans}
        == {span.name for span in trace.data.spans}
        == {
            "GET /sync/chats/{chat_id}",
            "answer",
        }
    )
    root = next(span for span in spans if not span.parent_span_id)
    tags = {
        f"mlflow.traceTag.{key}": value for key, value in trace.info.tags.items() if key in ("environment", "region")
    }
    assert tags == {"mlflow.traceTag.environment": "production", "mlflow.traceTag.region": "eu-west-1"}
    assert attributes_of(root).items() >= {**tags, "session.id": "s-1", "http.response.status_code": 200}.items()
    assert {each.path for each in collector.asked} == {"/v1/traces"}
    assert f"{variable} is set" in app.process.output()
    assert "Traceback" not in app.process.output()


def test_the_collector_alone(run_app: AppRunner, collector: CollectorStandIn, request_id: str) -> None:
    """With ``delivery`` set to MLflow's rule, no MLflow server is needed."""
    app = run_app(
        "asgi",
        {"delivery": "otlp"},
        OTEL_EXPORTER_OTLP_ENDPOINT=f"{collector.uri}/base/",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20key,x-scope=one",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
    )
    collector.answers = [503, 429]
    trace_id = asked(app, request_id)
    spans = eventually(lambda: collector.of_trace(trace_id), "the trace at the collector")

    assert {span.name for span in spans} == {"GET /sync/chats/{chat_id}", "answer"}
    first = collector.asked[0]
    assert first.path == "/base/v1/traces"
    assert first.headers.items() >= {"api-key": "a key", "x-scope": "one", "content-encoding": "gzip"}.items()


def test_an_mlflow_server_as_the_collector(run_app: AppRunner, request_id: str) -> None:
    """It builds the trace from the spans: session, tags and state are there, the request id is a tag only."""
    name = f"spans-{request_id}"
    created = requests.post(f"{run_app.server.uri}/api/2.0/mlflow/experiments/create", json={"name": name}, timeout=60)
    app = run_app(
        "asgi",
        {"delivery": "otlp"},
        MLFLOW_EXPERIMENT_NAME=name,
        OTEL_EXPORTER_OTLP_ENDPOINT=run_app.server.uri,
        OTEL_EXPORTER_OTLP_HEADERS=f"x-mlflow-experiment-id={created.json()['experiment_id']}",
    )
    trace_id = asked(app, request_id)
    stored = Traces(app.traces.uri, name)
    (trace,) = eventually(lambda: stored.search("metadata.`mlflow.trace.session` = 's-1'"), "the trace")

    assert (trace.info.trace_id, trace.info.state.value) == (trace_id, "OK")
    assert trace.info.tags.items() >= {"client_request_id": request_id, "environment": "production"}.items()
    assert trace.info.client_request_id is None
    assert [span.name for span in trace.data.spans] == ["GET /sync/chats/{chat_id}", "answer"]


def test_an_unreachable_collector_delays_nothing(run_app: AppRunner, request_id: str) -> None:
    """The MLflow server gets the trace; the log names the variable."""
    app = run_app("asgi", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    asked(app, request_id)

    assert app.traces.one(request_id).info.client_request_id == request_id
    line = (
        "traces are waiting, with retries at most 30 s apart: "
        "OTEL_EXPORTER_OTLP_ENDPOINT: http://127.0.0.1:9/v1/traces cannot be reached"
    )
    eventually(lambda: line in app.process.output(), "a line in the log")


def test_a_collector_can_be_disabled(run_app: AppRunner, collector: CollectorStandIn, request_id: str) -> None:
    """By MLflow's own switch."""
    app = run_app("asgi", OTEL_EXPORTER_OTLP_ENDPOINT=collector.uri, MLFLOW_ENABLE_OTLP_EXPORTER="false")
    asked(app, request_id)

    assert app.traces.one(request_id).info.client_request_id == request_id
    assert "collector" not in app.process.output()
    assert collector.asked == []


def checked(**variables: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run ``mlflow-middleware check``: its exit code, and outcome and message of each step."""
    command = [sys.executable, "-m", "mlflow_middleware.cli", "check", "--json"]
    done = subprocess.run(command, env=clean_environment(**variables), capture_output=True, timeout=120, check=False)
    steps = json.loads(done.stdout)["steps"]
    return done.returncode, {step["step"]: (step["outcome"], step["message"]) for step in steps}


def test_check_names_the_variable(collector: CollectorStandIn) -> None:
    """It also names the destinations; a collector that does not answer is a failure. No server is required."""
    only = {"MLFLOW_MIDDLEWARE_DELIVERY": "otlp"}
    code, steps = checked(OTEL_EXPORTER_OTLP_ENDPOINT=collector.uri, **only)
    away, failed = checked(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces", **only)

    answered = f"OTEL_EXPORTER_OTLP_ENDPOINT is set: all traces go to {collector.uri}/v1/traces, which answers"
    assert (code, steps["collector"]) == (0, ("passed", answered))
    assert {outcome for outcome, _ in steps.values()} == {"passed", "skipped"}
    assert (away, failed["collector"][0]) == (1, "failed")
    assert failed["collector"][1].startswith("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: http://127.0.0.1:9/v1/traces cannot")


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn-preload"])
def test_sigterm_right_after_requests(
    run_app: AppRunner, collector: CollectorStandIn, kind: str, request_id: str
) -> None:
    """Also in a process that has forked: the copies get a share of the time."""
    app = run_app(kind, {}, OTEL_EXPORTER_OTLP_ENDPOINT=collector.uri, **PATIENT)
    trace_ids = [asked(app, f"{request_id}-{number}") for number in range(20)]
    app.process.stop()

    assert [trace_id for trace_id in trace_ids if not collector.of_trace(trace_id)] == []
    assert len(app.traces.wait(f"tags.client_request_id LIKE '{request_id}-%'", 20)) == 20
