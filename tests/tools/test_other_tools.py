"""Beside Sentry, Datadog, Logfire and plain OpenTelemetry: each has its own trace, and shows the other's id."""

from __future__ import annotations

import pytest
from mlflow.entities import Trace

from tests.collector import CollectorStandIn, attributes_of
from tests.servers import eventually
from tests.tools.conftest import RunTool

FRAMEWORKS = [("fastapi", "asgi"), ("flask", "wsgi")]


def root_attributes(trace: Trace) -> dict[str, object]:
    return dict(next(span for span in trace.data.spans if span.parent_id is None).attributes)


@pytest.mark.parametrize(("framework", "kind"), FRAMEWORKS)
@pytest.mark.parametrize("tool", ["opentelemetry", "logfire"])
def test_opentelemetry(
    run_tool: RunTool, collector: CollectorStandIn, tool: str, framework: str, kind: str, request_id: str
) -> None:
    """The server span has our trace id; our root has the server span's. Logfire's own collector gets ours, too."""
    variables = {"APP_COLLECTOR": collector.uri, "APP_FRAMEWORK": framework}
    if tool == "logfire":
        variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.uri, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    app = run_tool(f"tests.tools.tool_apps:{tool}", kind, **variables)
    app.get("/chats/c-1", x_request_id=request_id)
    trace = app.traces.one(request_id)
    attributes = root_attributes(trace)

    def of_the_tool() -> list[dict[str, object]]:
        found = collector.of_trace(str(attributes["otel.trace_id"]))
        return [attributes_of(span) for span in found if not span.parent_span_id]

    (server,) = eventually(of_the_tool, "the tool's own trace", 30)
    assert attributes["otel.trace_id"] != trace.info.trace_id.removeprefix("tr-")
    assert server["mlflow.trace_id"] == trace.info.trace_id
    if tool == "logfire":
        assert eventually(lambda: collector.of_trace(trace.info.trace_id), "our trace there", 30)
        assert "OTEL_EXPORTER_OTLP_ENDPOINT is set" in app.process.output()


@pytest.mark.parametrize("rate", ["1", "0"])
@pytest.mark.parametrize(("framework", "kind"), FRAMEWORKS)
def test_sentry(
    run_tool: RunTool, collector: CollectorStandIn, framework: str, kind: str, rate: str, request_id: str
) -> None:
    """Sentry's transactions and errors have our trace id as a tag; our root has Sentry's."""
    dsn = collector.uri.replace("http://", "http://key@") + "/1"
    app = run_tool("tests.tools.tool_apps:sentry", kind, APP_DSN=dsn, APP_FRAMEWORK=framework, APP_RATE=rate)
    app.get("/fail", x_request_id=request_id)
    trace = app.traces.one(request_id)
    attributes = root_attributes(trace)

    def sent() -> list[bytes]:
        return [asked.body for asked in list(collector.asked) if trace.info.trace_id.encode() in asked.body]

    first = eventually(sent, "an event with our trace id", 30)[0]
    assert b"mlflow.trace_id" in first
    assert str(attributes["sentry.trace_id"]).encode() in first


@pytest.mark.parametrize(("framework", "kind"), FRAMEWORKS)
def test_datadog(run_tool: RunTool, collector: CollectorStandIn, framework: str, kind: str, request_id: str) -> None:
    """Datadog's span of the request has our trace id as a tag; our root has Datadog's trace id."""
    variables = {"DD_TRACE_AGENT_URL": collector.uri, "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"}
    variables |= {"DD_REMOTE_CONFIGURATION_ENABLED": "false", "DD_TRACE_API_VERSION": "v0.4"}
    app = run_tool("tests.tools.tool_apps:datadog", kind, APP_FRAMEWORK=framework, **variables)
    app.get("/chats/c-1", x_request_id=request_id)
    trace = app.traces.one(request_id)

    def sent() -> list[bytes]:
        return [asked.body for asked in list(collector.asked) if trace.info.trace_id.encode() in asked.body]

    assert b"mlflow.trace_id" in eventually(sent, "a span with our trace id", 30)[0]
    assert len(str(root_attributes(trace)["dd.trace_id"])) == 32
