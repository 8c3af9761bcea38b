"""The encoding of spans' attributes, so that a server can return them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlflow_middleware.mlflow_bridge import readable

DEEP = "[" * 40 + "]" * 40
MANY = json.dumps([{"id": number, "tags": ["a"]} for number in range(50)])


def as_a_server_stores(sent: Any) -> Any:
    """Return an attribute as a server decodes it: see ``sanitize_attributes`` in mlflow/tracing/otel/translation."""
    stored = json.dumps(sent)
    if isinstance(sent, str):
        try:
            inner = json.loads(sent)
        except json.JSONDecodeError:
            return sent
        if isinstance(inner, str | dict | list):
            stored = sent
    return json.loads(stored)


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    "value", [{"a": 1}, json.loads(MANY), "text", "[not JSON", "1" * 4000, 7, 2**63 - 1, 0.5, True, [], {}, "{}x", "-"]
)
def test_most_values_are_sent_unchanged(value: Any, as_text: bool) -> None:
    """Objects and arrays as text if possible."""
    sent = readable.value_of("key", json.dumps(value), as_text=as_text)

    is_text = as_text and isinstance(value, dict | list)
    assert sent == (json.dumps(value) if is_text else value)
    assert as_a_server_stores(sent) == value


@pytest.mark.parametrize("text", [DEEP, f" {DEEP}", "1" * 5000, "-" + "1" * 5000, f'{{"n": {2**64}}}', "[" * 5000])
def test_text_that_a_server_would_parse_as_json_is_quoted(text: str) -> None:
    """A server removes the quotes, and parses no further; without a server, we remove them."""
    sent = readable.value_of("key", json.dumps(text))

    if text == "[" * 5000:  # no JSON, but too deep for a parser to find out
        assert sent in (text, json.dumps(text))
        return
    assert sent == json.dumps(text)
    assert as_a_server_stores(sent) == text
    assert readable.unquoted(json.dumps(sent)) == sent
    assert readable.as_sent(json.dumps(text)) == sent


def test_other_quoted_text_is_unchanged() -> None:
    """It is the app's own."""
    assert readable.unquoted(json.dumps('"in quotes"')) is None
    assert readable.unquoted(json.dumps(DEEP)) is None
    assert readable.unquoted(json.dumps(7)) is None


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"n": 2**63}, {"n": str(2**63)}),
        ([-(2**63) - 1, -(2**63)], [str(-(2**63) - 1), -(2**63)]),
        (json.loads(DEEP), None),
    ],
)
def test_unreadable_values_inside_become_text(value: Any, sent: Any) -> None:
    """Large integers, and values nested too deeply."""
    for as_text in (False, True):
        found = readable.value_of("mlflow.spanInputs", json.dumps(value), as_text=as_text)
        assert isinstance(found, str) is as_text
        plain = json.loads(found) if as_text else found
        assert sent is None or plain == sent
    again = readable.readable("mlflow.spanInputs", json.dumps(value))
    assert json.loads(again) == plain


def test_a_session_id_is_limited_like_on_a_server() -> None:
    """A server would reject all spans."""
    long = json.dumps("s" * 300)
    assert readable.value_of("session.id", long) == "s" * 250
    assert readable.readable("session.id", long) == json.dumps("s" * 250)
    assert readable.value_of("other", long) == "s" * 300


def test_tokens_are_numbers() -> None:
    """Servers sum them up: other values are left out."""
    used = json.dumps({"input_tokens": 2**70, "output_tokens": 3, "total_tokens": "x", "cost": float("nan")})
    for as_text in (False, True):
        assert readable.value_of("mlflow.chat.tokenUsage", used, as_text=as_text) == {"output_tokens": 3}
    assert json.loads(readable.readable("mlflow.chat.tokenUsage", used)) == {"output_tokens": 3}
    assert readable.value_of("mlflow.llm.cost", "[1]") == {}


@pytest.mark.parametrize("key", ["mlflow.chat.tokenUsage", "mlflow.llm.cost"])
@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"input_tokens": "3", "output_tokens": 1}, {"output_tokens": 1}),
        ({"input_tokens": 1, "output_tokens": None}, {"input_tokens": 1}),
        ({"input_tokens": {"a": 1}}, {}),
        ("x", {}),
        (None, {}),
        (5, {}),
    ],
)
def test_invalid_token_counts_are_left_out(key: str, value: Any, sent: dict[str, int]) -> None:
    """A server rejects all spans of a request with one."""
    text = json.dumps(value)
    for as_text in (False, True):
        assert as_a_server_stores(readable.value_of(key, text, as_text=as_text)) == sent
    assert json.loads(readable.readable(key, text)) == sent


def test_a_spans_type_is_text_that_a_database_accepts() -> None:
    """Whatever the app sets."""
    for value, sent in (([1], "[1]"), (5, "5"), (None, None), ("t" * 1000, "t" * 500), ("AGENT", "AGENT")):
        assert readable.value_of("mlflow.spanType", json.dumps(value)) == sent
        assert json.loads(readable.readable("mlflow.spanType", json.dumps(value))) == sent
