"""``docs/tags-and-attributes.md`` has each name of a trace, and no other."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest

from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.settings import Settings
from tests import reference_tags as page
from tests.unit.encoded import Sent, attributes_of, sent_traces

OPTIONS: dict[str, Any] = {
    "capture_headers": ["accept"],
    "max_body_bytes": 200,
    "trusted_proxies": ["10.0.0.1"],
    "user_id_hmac_key": "a key of at least 16 characters",
}
HEADERS = {
    "accept": "text/event-stream",
    "content-type": "application/json",
    "host": "chat.example:8443",
    "user-agent": "curl/8",
    "x-forwarded-for": "203.0.113.7",
    "x-session-id": "s-1",
    "x-user-id": "jane",
}
CHUNK = {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [{"delta": {"content": "word " * 100}}]}
USAGE = {**CHUNK, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}


def sent(*, is_open_inside: bool) -> Sent:
    """Return the encoded traces of requests with everything: a proxy, a model's stream, an exception, a disconnect."""
    with sent_traces() as traces:
        exchange = Exchange("BREW", "/chat", HEADERS, "q=1", client="10.0.0.1")
        trace = RequestTrace.open(exchange, Settings(**OPTIONS))
        trace.activate()
        if is_open_inside:
            with mlflow.start_span("inside"):
                mlflow.update_current_trace(tags={"plan": "pro"})
        trace.received(json.dumps({"messages": ["why?"] * 100, "model": "gpt-4o"}).encode())
        trace.failed(RuntimeError("broken"))
        trace.response_started(500, "text/event-stream")
        for piece in (CHUNK, USAGE):
            trace.sent(f"data: {json.dumps(piece)}\n\n".encode())
        trace.disconnected()
        trace.last_byte()
        trace.deactivate()
        trace.finish()
    return traces[-1]


@pytest.mark.parametrize("is_open_inside", [False, True])
def test_each_name_that_is_sent_is_described(is_open_inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tags, metadata, the root's attributes and its event, with MLflow's objects for them or without."""
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("APP_VERSION", "1.2.3")
    trace = sent(is_open_inside=is_open_inside)

    assert trace.trace_info["tags"].keys() - {each.name for each in page.TAGS} <= {"plan"}
    assert trace.trace_info["trace_metadata"].keys() - {each.name for each in page.METADATA} == set()
    found = {key.replace("header.accept", "header.<name>") for key in attributes_of(trace.root)}
    assert found - {each.name for each in page.ATTRIBUTES} == set()
    assert {"http.request.header.<name>", "http.client_disconnected", "user.hash", "service.version"} <= found
    assert {each.key for event in trace.root.events for each in event.attributes} == {each.name for each in page.EVENT}


def test_each_name_in_the_code_is_described() -> None:
    """A new one needs a row in one of the tables."""
    described = {each.name for table in (page.TAGS, page.METADATA, page.ATTRIBUTES, page.EVENT) for each in table}

    assert set(page.names_in_the_code()) - described - page.ELSEWHERE == set()


OF_GIT = {"mlflow.source.git.branch", "mlflow.source.git.commit", "mlflow.source.git.repoURL"}
MLFLOW_S = {"mlflow.user", "mlflow.source.name", "mlflow.source.type", *OF_GIT}
"""Names that MLflow itself finds out of a process."""

MADE = {"http.request.body.cut", "http.response.body.cut", "http.request.header.<name>", "mlflow.traceTag.<tag>"}
"""Names that the code puts together."""


def test_each_described_name_is_in_the_code() -> None:
    """A removed name needs its row removed."""
    tables = (page.TAGS, page.METADATA, page.ATTRIBUTES, page.EVENT)
    described = {each.name for table in tables for each in table} - {each.name for each in page._deployment_tags()}

    assert described - set(page.names_in_the_code()) == MLFLOW_S | MADE
