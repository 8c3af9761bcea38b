"""``content="none"`` and ``metadata_only``: no content is stored, wherever the app puts it."""

from __future__ import annotations

import base64
import json
from typing import Any

import mlflow
import pytest
from mlflow.entities import LiveSpan, SpanEvent, Trace
from opentelemetry import trace as opentelemetry

from mlflow_middleware import delivery
from mlflow_middleware.asgi import TraceMiddleware
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.request_trace import continue_trace, outbound_headers
from mlflow_middleware.settings import Settings, SettingsError
from tests.messages import websocket
from tests.unit.encoded import Sent, attributes_of, sent_traces
from tests.unit.serving import Serving

SAID = "melange"
ANSWER = {"error": SAID, "errors": [{"message": SAID, "extensions": {"code": SAID}}], "model": "gpt-4o", "choices": []}
OPTIONS = pytest.mark.parametrize("options", [{"content": "none"}, {"metadata_only": ["/*"]}])
USED = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def add_content() -> None:
    """Add content in every way that an app has."""
    root = mlflow.get_current_active_span()
    assert root is not None
    root.set_inputs({"messages": [SAID]})
    root.set_attribute("asked", SAID)
    root.set_attribute("temperature", 0.5)
    root.add_event(SpanEvent("said", attributes={"what": SAID, "count": 1}))
    mlflow.update_current_trace(request_preview=SAID, response_preview=SAID)
    with mlflow.start_span("call", "CHAT_MODEL", attributes={"prompt": SAID, "tokens": 5}) as span:
        span.set_inputs(SAID)
        span.set_outputs([SAID])
        span.set_attribute("mlflow.chat.tokenUsage", USED)
        span.set_attribute("mlflow.llm.model", "claude-3-haiku-20240307")
        span.set_attribute("gen_ai.input.messages", json.dumps([SAID]))
        span.set_status("ERROR")
        with pytest.raises(ValueError, match=SAID), mlflow.start_span("fails"):
            raise ValueError(SAID)
        opentelemetry.get_current_span().set_attribute("list", [SAID])
    raise RuntimeError(f"cannot answer {SAID}")


def ask(app: Any, **options: Any) -> Sent:
    """Return the encoded trace of a request to an app."""
    with sent_traces() as sent:
        asked(app, **options)
    return sent[-1]


def asked(app: Any, **options: Any) -> None:
    """Send one request to an app."""
    exchange = Exchange("POST", "/chat", {"content-type": "application/json"}, f"q={SAID}")
    trace = RequestTrace.open(exchange, Settings(**options))
    trace.activate()
    trace.received(json.dumps({"messages": [SAID], "model": "gpt-4o"}).encode())
    try:
        app()
    except RuntimeError as error:
        trace.failed(error)
    trace.response_started(500, "application/json")
    trace.sent(json.dumps(ANSWER).encode())
    trace.last_byte()
    trace.deactivate()
    trace.finish()


@OPTIONS
def test_no_content_is_sent(options: dict[str, Any]) -> None:
    """Not in spans, events, status, preview, tags or metadata; by default, all of it is."""
    hidden, shown = ask(add_content, **options, error_when="graphql"), ask(add_content)

    assert SAID not in hidden.info.decode()
    assert SAID.encode() not in hidden.otlp
    assert shown.otlp.count(SAID.encode()) > 12
    assert SAID in shown.info.decode()


@OPTIONS
def test_other_values_are_sent(options: dict[str, Any]) -> None:
    """Names, types, numbers, tokens, models, times."""
    sent = ask(add_content, **options)
    spans = {span.name: span for span in sent.spans}
    root, call = attributes_of(sent.root), attributes_of(spans["call"])

    assert (call["mlflow.chat.tokenUsage"], call["mlflow.llm.model"]) == (USED, "claude-3-haiku-20240307")
    assert (call["mlflow.spanType"], call["tokens"], root["temperature"]) == ("CHAT_MODEL", 5, 0.5)
    assert (root["error.type"], sent.root.status.message) == ("RuntimeError", "RuntimeError")
    (exception,) = (event for event in spans["fails"].events if event.name == "exception")
    assert [each.value.string_value for each in exception.attributes if each.key == "exception.type"] == ["ValueError"]
    assert sent.trace_info["tags"]["gen_ai.response.model"] == "claude-3-haiku-20240307"
    assert json.loads(sent.trace_info["trace_metadata"]["mlflow.trace.tokenUsage"]) == USED


@pytest.mark.parametrize(("options", "files"), [({}, 1), ({"content": "none"}, 0)])
def test_files_of_spans_are_no_exception(options: dict[str, Any], files: int) -> None:
    """This covers an image that the app has shown to a model."""

    def attaches() -> None:
        image = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 8).decode()
        with mlflow.start_span("call") as span:
            span.set_inputs({"messages": [{"content": [{"type": "image_url", "image_url": {"url": image}}]}]})

    encoded: list[EncodedTrace] = []
    with delivery.capturing(lambda trace: encoded.append(EncodedTrace.encode(trace))):
        asked(attaches, **options)

    is_known = hasattr(LiveSpan, "_should_extract_base64")  # unknown to MLflow 3.11
    assert len(encoded[-1].attachments) == files * is_known


def test_the_apps_own_traces_follow_the_process() -> None:
    """These are traces outside requests; the option of the process's first middleware applies."""
    from mlflow_middleware.capture import spans

    def own() -> Sent:
        with sent_traces() as sent, mlflow.start_span("own") as span:
            span.set_inputs(SAID)
        return sent[0]

    before = own()
    spans.redact_with(None, "none")
    try:
        after = own()
    finally:
        spans.redact_with(None)

    assert (SAID.encode() in before.otlp, SAID.encode() in after.otlp, SAID in after.info.decode()) == (
        True,
        False,
        False,
    )


async def test_a_connection_is_no_exception() -> None:
    """This covers the traces that are opened inside a websocket."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with mlflow.start_span("turn") as span:
            span.set_inputs(SAID)

    async def sent_by(**options: Any) -> Sent:
        with sent_traces() as sent:
            await Serving(TraceMiddleware(app, **options), websocket("/ws/7")).end()
        return sent[0]

    shown = await sent_by()
    assert SAID.encode() in shown.otlp
    for options in ({"content": "none"}, {"metadata_only": "/ws/*"}, {"routes": {"/ws/*": {"content": "none"}}}):
        hidden = await sent_by(**options)
        assert SAID.encode() not in hidden.otlp
        assert SAID not in hidden.info.decode()
        assert [span.name for span in hidden.spans] == ["turn"]


@pytest.mark.parametrize("is_over", [True, False])
def test_spans_that_are_added_to_an_earlier_trace_are_no_exception(is_over: bool) -> None:
    """The option of the request that adds them applies."""
    secret = {"trace_token_secret": "0123456789abcdef"}
    with sent_traces() as sent:
        earlier = RequestTrace.open(Exchange("GET", "/", {}), Settings.load(**secret))
        earlier.response_started(200)
        token = dict(earlier.response_headers() or ())["X-MLflow-Trace-Token"]
        if is_over:
            earlier.finish()
        later = RequestTrace.open(Exchange("POST", "/", {}), Settings.load(content="none", **secret))
        later.activate()
        with continue_trace(token), mlflow.start_span("added") as span:
            span.set_inputs(SAID)
        later.deactivate()
        later.finish()
        earlier.finish()

    assert "added" in [span.name for each in sent for span in each.spans]
    assert not any(SAID.encode() in each.otlp or SAID in each.info.decode() for each in sent)


def test_numbers_are_no_exception() -> None:
    """Such as a card's number, under any of the tools' names for a model's inputs and outputs."""
    names = ("input.value", "gen_ai.prompt.0.content", "gen_ai.completion", "gen_ai.tool.call.arguments")

    def add_number() -> None:
        root = mlflow.get_current_active_span()
        assert root is not None
        root.set_inputs(4111)
        with mlflow.start_span("call", attributes={"tokens": 5}) as span:
            span.set_inputs(4111)
            span.set_outputs(41.11)
            span.set_attributes(dict.fromkeys(names, 4111))

    def said(sent: Sent) -> set[str]:
        return {key for span in sent.spans for key, value in attributes_of(span).items() if value == 4111}

    hidden, shown = ask(add_number, content="none"), ask(add_number)

    assert said(shown) == {"mlflow.spanInputs", *names}
    assert said(hidden) == set()
    call = attributes_of({span.name: span for span in hidden.spans}["call"])
    assert (call["tokens"], call.get("mlflow.spanOutputs")) == (5, None)


def test_captured_traces_are_no_exception(captured_traces: list[Trace]) -> None:
    """A test's captured traces are those that a server would get."""
    exchange = Exchange("POST", "/chat", {})
    trace = RequestTrace.open(exchange, Settings(content="none"))
    trace.failed(KeyError(SAID))
    trace.finish()

    assert SAID not in json.dumps(captured_traces[0].to_dict())
    assert captured_traces[0].data.spans[0].events[0].attributes == {"exception.type": "KeyError"}


def test_a_wrong_value_is_reported() -> None:
    """With the allowed values."""
    with pytest.raises(SettingsError, match=r"'content': input should be 'all' or 'none', not 'some'"):
        Settings.load(content="some")


def test_a_request_inside_another_ones_trace_is_no_exception() -> None:
    """The content of its spans is not stored by the other one, which stores content."""
    with sent_traces() as sent:
        outer = RequestTrace.open(Exchange("POST", "/gateway", {}), Settings())
        outer.activate()
        headers = {name.lower(): value for name, value in outbound_headers().items()}
        inner = RequestTrace.open(Exchange("POST", "/", headers), Settings(content="none", trust_incoming_trace=True))
        inner.activate()
        with mlflow.start_span("inner") as span:
            span.set_inputs(SAID)
        inner.deactivate()
        inner.finish()
        outer.deactivate()
        outer.finish()

    assert "inner" in [span.name for each in sent for span in each.spans]
    assert not any(SAID.encode() in each.otlp or SAID in each.info.decode() for each in sent)
