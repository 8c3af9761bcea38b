"""Model and usage of a request, by each provider's documentation of its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Trace

from mlflow_middleware.capture import model_calls
from mlflow_middleware.capture.usage import usage_of
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request.lifecycle import RequestTrace
from mlflow_middleware.settings import Settings
from mlflow_middleware.testing import captured_traces
from tests.model_answers import ALL, SAID, Exchanged

EACH = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
TOKENS = {
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cache_read_input_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "cache_creation_input_tokens",
}


def ask(case: Exchanged, **options: Any) -> Trace:
    """Return the trace of a request in pieces, with this answer."""
    exchange = Exchange("POST", case.path, {"content-type": "application/json"}, "q=tea")
    with captured_traces() as traces:
        trace = RequestTrace.open(exchange, Settings(**options))
        trace.received(json.dumps(case.request).encode())
        trace.response_started(200, case.kind)
        body = case.body
        for start in range(0, len(body), 1000):
            trace.sent(body[start : start + 1000])
        trace.last_byte()
        trace.finish()
    return traces[0]


@EACH
def test_the_root_has_model_and_tokens(case: Exchanged) -> None:
    """Under MLflow's names and OpenTelemetry's, on the span and the trace."""
    trace = ask(case)
    root = trace.data.spans[0].attributes

    assert root["mlflow.chat.tokenUsage"] == case.usage
    assert json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"]) == case.usage
    assert {key: root.get(key) for key in TOKENS} == {key: case.usage.get(name) for key, name in TOKENS.items()}
    assert (root.get("mlflow.llm.model"), root.get("mlflow.llm.provider")) == (case.model, case.provider)
    assert root.get("gen_ai.provider.name") == (case.system or case.provider)
    assert trace.info.tags.get("gen_ai.response.model") == case.model
    assert ("gen_ai.response.time_to_first_chunk" in root) == (
        case.kind == "text/event-stream" or len(case.body) > 1000
    )


@EACH
@pytest.mark.parametrize("options", [{"content": "none"}, {"metadata_only": ["*"]}, {"privacy": "strict"}])
def test_without_content_they_are_stored_all_the_same(case: Exchanged, options: dict[str, Any]) -> None:
    """And sizes; but nothing of the bodies or the query."""
    trace = ask(case, **options)
    root = trace.data.spans[0]

    assert root.attributes["mlflow.chat.tokenUsage"] == case.usage
    assert root.attributes.get("mlflow.llm.model") == case.model
    assert root.attributes["http.response.body.size"] == len(case.body)
    assert root.attributes["http.request.body.size"] == len(json.dumps(case.request))
    assert (root.inputs, root.outputs, trace.info.request_preview, trace.info.response_preview) == (None,) * 4
    assert not [word for word in (SAID, "tea") if word in json.dumps(trace.to_dict())]


def test_a_stream_has_the_time_of_its_first_chunk() -> None:
    """In seconds, as in OpenTelemetry; with contents and without."""
    case = next(case for case in ALL if case.name == "openai-chat-stream")

    for options in ({}, {"content": "none"}):
        root = ask(case, **options).data.spans[0].attributes
        assert root["gen_ai.response.time_to_first_chunk"] == root["http.response.time_to_first_byte"] >= 0


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-5-mini", "openai"),
        ("o3", "openai"),
        ("o4-mini", "openai"),
        ("claude-opus-4-1", "anthropic"),
        ("anthropic/claude-3.5-sonnet", "anthropic"),
        ("bedrock/anthropic.claude-v2", "bedrock"),
        ("eu.amazon.nova-lite-v1:0", "bedrock"),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3-3-70b-instruct-v1:0", "bedrock"),
        ("gemini-2.0-flash", "gemini"),
        ("google/gemini-2.5-pro", "gemini"),
        ("groq/llama-3.3-70b", "groq"),
        ("mistral-large-latest", "mistral"),
        ("deepseek-chat", "deepseek"),
        ("grok-4", "xai"),
        ("databricks-meta-llama-3-3-70b-instruct", "databricks"),
        ("gpt-oss:20b", "openai"),
        ("meta-llama/Llama-3-8B", "openai"),
    ],
)
def test_a_models_name_implies_its_provider(model: str, provider: str) -> None:
    """Even if another service passes its answer on in OpenAI's format; for open models, the protocol implies it."""
    answer = {"object": "chat.completion", "model": model, "choices": []}

    named = dict(model_calls.names_of({}, answer, "/", None, None))

    assert named["mlflow.llm.provider"] == provider
    assert "123456789012" not in str(named)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ({"model": "Civic", "year": 2020}, {"price": 1}),
        ({"model": "please buy milk", "messages": []}, {}),
        ({}, {"choices": ["red", "blue"]}),
        ({}, {"object": "car", "model": "T"}),
        ({"prompt": "x"}, {"output": "y"}),
        ([], [1, 2]),
    ],
)
def test_other_answers_have_no_model(sent: Any, answer: Any) -> None:
    """A car is none, and a sentence is no model's name."""
    assert dict(model_calls.names_of(sent, answer, "/cars", None, None)) == {}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*model_calls.KEYS, "usage", "results", "data", "embedding"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(anything, anything)
def test_nothing_raises(sent: Any, answer: Any) -> None:
    """Whatever the values are."""
    names = model_calls.names_of(sent, answer, "/", usage_of(answer), None)

    assert all(isinstance(value, str) and len(value) <= 200 for _, value in names)


def test_tokens_are_counts() -> None:
    """They are not negative, and not larger than a server can add up."""
    for count in (-1, 2**60, 1.5, True, "7", None):
        assert usage_of({"usage": {"prompt_tokens": count, "completion_tokens": 1}}) is None


def test_a_converse_stream_is_one_message() -> None:
    """It has the text, the reasoning, and a tool's parsed input, like an answer of ``Converse``."""
    events = [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"reasoningContent": {"text": "hm"}}, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": "The "}, "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"text": "spice"}, "contentBlockIndex": 1}},
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "t1", "name": "find"}}, "contentBlockIndex": 2}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": '{"what": '}}, "contentBlockIndex": 2}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": '"worm"}'}}, "contentBlockIndex": 2}},
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}},
    ]
    case = Exchanged("converse", {"messages": []}, events, {}, None, "bedrock", kind="text/event-stream")

    trace = ask(case)

    assert trace.info.response_preview == "The spice"
    assert trace.data.spans[0].outputs == {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm"}}},
                    {"text": "The spice"},
                    {"toolUse": {"toolUseId": "t1", "name": "find", "input": {"what": "worm"}}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
    }
