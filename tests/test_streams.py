"""Streams: what a language model sent in pieces is one answer in the trace."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware.capture import streams, usage
from tests.generators import chunk, hostile, sse


def answer(*pieces: Any) -> Any:
    """What the trace shows of these events."""
    return streams.read_events(sse(*pieces), False, json.loads)[0]


def test_events_are_parsed_as_the_standard_says() -> None:
    """Any line end, a byte order mark, comments, several lines of data, names."""
    data = b"\xef\xbb\xbf: hi\r\ndata: a\r\ndata:b\r\rid: 1\nevent: x\ndata\n\nevent: none\n\ndata: last"

    assert streams.events(data, cut=True) == [("message", "a\nb"), ("x", "")]
    assert streams.events(data, cut=False)[2:] == [("message", "last")]


def test_chat_chunks_become_one_completion() -> None:
    """Texts and tool calls are joined, each choice for itself, and the usage is read."""
    whole = answer(
        chunk(role="assistant", content="Hel"),
        chunk(1, content="B"),
        chunk(content="lo", tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a"'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
    )

    call = {"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}
    first, second = whole["choices"]
    assert first["message"] == {"role": "assistant", "content": "Hello", "tool_calls": [call]}
    assert (first["finish_reason"], second["message"]["content"]) == ("stop", "B")
    assert (whole["object"], whole["model"]) == ("chat.completion", "m")
    assert usage.usage_of(whole) == {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}


def test_a_stream_that_breaks_off_inside_an_event_is_an_answer() -> None:
    """The client has stopped, or the model's server has: what came before is shown."""
    data = sse(chunk(content="Hel"), chunk(content="lo")).replace(b"data: [DONE]", b'data: {"id": "chatc')

    def parse(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    answer, is_more = streams.read_events(data.rstrip(), False, parse)
    assert (answer["choices"][0]["message"]["content"], is_more) == ("Hello", False)


def test_an_event_without_data_is_no_piece() -> None:
    """Some servers send one now and then, so that nobody takes the connection for dead."""
    data = sse(chunk(content="a")).replace(b"data: [DONE]", b"data\n\n" + sse(chunk(content="b")))

    answer, is_more = streams.read_events(data, False, lambda text: json.loads(text) if text else text)
    assert (answer["choices"][0]["message"]["content"], is_more) == ("ab", False)


def test_response_events_become_one_response() -> None:
    """The whole response where it came; else its items and what the deltas say."""
    delta = {"type": "response.output_text.delta", "item_id": "i", "delta": "Hi"}
    item = {"type": "message", "id": "i", "content": [{"type": "output_text", "text": "HiHi"}]}
    result = {"type": "function_call_output", "output": "1"}
    done = "response.output_item.done"

    text = [{"type": "output_text", "text": "HiHi"}]
    assert answer(delta, delta) == {"output": [{"type": "message", "role": "assistant", "content": text}]}
    assert answer(delta, {"type": done, "item": item}) == {"output": [item]}
    assert answer(*[{"type": done, "item": result}] * 2) == {"output": [result, result]}
    assert answer(delta, {"type": "response.completed", "response": {"id": "r"}}) == {"id": "r"}


def test_anthropic_events_become_one_message() -> None:
    """Text and the input of tools are joined; usage and stop reason are those of the end."""
    block = {"type": "content_block_delta", "index": 1}
    whole = answer(
        {"type": "message_start", "message": {"role": "assistant", "model": "m", "usage": {"input_tokens": 4}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "f", "input": {}}},
        {**block, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {**block, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    )

    assert whole["content"] == [{"type": "text", "text": "Hi"}, {"type": "tool_use", "name": "f", "input": {"a": 1}}]
    assert (whole["role"], whole["model"], whole["stop_reason"]) == ("assistant", "m", "end_turn")
    assert usage.usage_of(whole) == {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6}


@pytest.mark.parametrize("bad", [chunk("0"), chunk(10**9), chunk(content=["a"]), {"choices": 7}, [], None])
def test_a_stream_of_wrong_types_stays_a_list_of_events(bad: Any) -> None:
    """What cannot be put together is shown as it came."""
    assert answer(chunk(content="a"), bad) == [chunk(content="a"), bad]


def test_other_streams_are_lists() -> None:
    """With the names of the events; at most 1000 of them."""
    data = b"event: x\ndata: {}\n\n" * 1001

    kept, is_more = streams.read_events(data, False, json.loads)
    assert (kept[0], len(kept), is_more) == ({"event": "x", "data": {}}, 1000, True)
    assert streams.read_lines('{"a": 1}\n\n{"a', True, json.loads) == ([{"a": 1}], False)


@given(st.lists(hostile, max_size=5))
def test_no_stream_raises(pieces: list[Any]) -> None:
    """Whatever stands where."""
    json.dumps(answer(*pieces))
    for piece in pieces:
        usage.usage_of(piece)
