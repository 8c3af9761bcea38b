"""Beside an app's own OpenTelemetry, whose tracer provider MLflow shares: one trace per request, complete in both."""

from __future__ import annotations

import json

import pytest

from tests.collector import CollectorStandIn
from tests.servers import eventually
from tests.tools.conftest import RunTool

SHARED = {"MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false"}


def ancestors(parents: dict[str, str | None], span: str) -> list[str]:
    """Return the ancestors of a span."""
    parent = parents[span]
    return [parent, *ancestors(parents, parent)] if parent else []


FASTAPI, FLASK = ("fastapi", "asgi", "{chat_id}"), ("flask", "wsgi", "<chat_id>")


@pytest.mark.parametrize("set_up", ["first", "last"])
@pytest.mark.parametrize(
    ("name", "kind", "route", "order"),
    [
        (*FASTAPI, "outside"),
        (*FASTAPI, "inside"),
        (*FASTAPI, "native"),
        (*FLASK, "outside"),
        (*FLASK, "inside"),
    ],
)
def test_one_trace(
    run_tool: RunTool,
    collector: CollectorStandIn,
    name: str,
    kind: str,
    route: str,
    order: str,
    set_up: str,
    request_id: str,
) -> None:
    """It has the server span of OpenTelemetry, ours, and those of the handler, nested."""
    variables = {**SHARED, "APP_COLLECTOR": collector.uri, "APP_ORDER": order, "APP_SET_UP": set_up}
    app = run_tool(f"tests.tools.otel_apps:{name}", kind, **variables)
    body = json.dumps({"question": "hello"}).encode()
    headers = {"x_request_id": request_id, "x_session_id": "s-1", "content_type": "application/json"}
    answer = app.post("/chats/c-1", body, **headers)
    trace_id = answer.headers["X-MLflow-Trace-ID"]

    def is_whole() -> bool:
        return {"answer", "query"} < {span.name for span in collector.of_trace(trace_id)} and any(
            span.kind == span.SPAN_KIND_SERVER or order == "inside" for span in collector.of_trace(trace_id)
        )

    eventually(is_whole, "the trace at the app's own collector", 30)
    trace = app.traces.one(request_id)
    parents = {span.span_id: span.parent_id for span in trace.data.spans}
    (ours,) = (span.span_id for span in trace.data.spans if "session.id" in span.attributes)
    (query,) = (span.span_id for span in trace.data.spans if span.name == "query")
    (answered,) = (span.span_id for span in trace.data.spans if span.name == "answer")

    assert trace.info.trace_id == trace_id
    assert eventually(lambda: len(app.traces.search()) == 1)
    assert parents == {span.span_id.hex(): span.parent_span_id.hex() or None for span in collector.of_trace(trace_id)}
    assert parents[answered] == query
    above = {each: [each, *ancestors(parents, each)] for each in parents}
    assert ours in above[query]
    assert len(above[ours]) == (1 if order == "inside" else 2)  # below the server span, and no others
    info = trace.info
    assert (info.tags["mlflow.traceName"], info.request_preview) == (f"POST /chats/{route}", '{"question": "hello"}')
    assert json.loads(info.response_preview) == {"answer": "hello"}
    assert (str(info.state), info.trace_metadata["mlflow.trace.session"]) == ("OK", "s-1")
