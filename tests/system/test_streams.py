"""Streams: a language model's answer in pieces is one answer in the trace."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_middleware.capture import Redactor, previews, streams, texts, usage
from mlflow_middleware.capture.body import Body
from mlflow_middleware.capture.content import Content, read
from mlflow_middleware.exchange import Exchange
from mlflow_middleware.request.following import follow_answer
from mlflow_middleware.settings import Settings
from tests.conftest import AppRunner
from tests.generators import ENCODERS, MARKER, Sample, chat, chunk, hostile, sse, stream_bodies
from tests.long_streams import SSE, STREAMS, USAGE, Stream, event, written

LIMIT = 65536
redactor = Redactor(Settings.model_fields["redact"].default)


def answer(*pieces: Any) -> Any:
    """Return the trace's output for these events."""
    return streams.read_events(sse(*pieces), False, json.loads)[0]


def test_events_are_parsed_as_in_the_standard() -> None:
    """Any line end, a byte order mark, comments, several lines of data, names."""
    data = b"\xef\xbb\xbf: hi\r\ndata: a\r\ndata:b\r\rid: 1\nevent: x\ndata\n\nevent: none\n\ndata: last"

    assert streams.events(data, cut=True) == [("message", "a\nb"), ("x", "")]
    assert streams.events(data, cut=False)[2:] == [("message", "last")]


def test_chat_chunks_become_one_completion() -> None:
    """Texts and tool calls are joined, separately for each choice, and the usage is read."""
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


def test_a_stream_that_ends_inside_an_event_is_an_answer() -> None:
    """The client has disconnected, or the model's server has failed: the earlier events are shown."""
    data = sse(chunk(content="Hel"), chunk(content="lo")).replace(b"data: [DONE]", b'data: {"id": "chatc')

    def parse(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return text

    answer, is_more = streams.read_events(data.rstrip(), False, parse)
    assert (answer["choices"][0]["message"]["content"], is_more) == ("Hello", False)


def test_an_event_without_data_is_ignored() -> None:
    """Some servers send one now and then to keep the connection alive."""
    data = sse(chunk(content="a")).replace(b"data: [DONE]", b"data\n\n" + sse(chunk(content="b")))

    answer, is_more = streams.read_events(data, False, lambda text: json.loads(text) if text else text)
    assert (answer["choices"][0]["message"]["content"], is_more) == ("ab", False)


def test_response_events_become_one_response() -> None:
    """The complete response, if it was sent; otherwise its items and the deltas."""
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
    """Text and the input of tools are joined; usage and stop reason are the last ones."""
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
    """Events that cannot be joined are shown unchanged."""
    assert answer(chunk(content="a"), bad) == [chunk(content="a"), bad]


AUDIO = chunk(audio="a"), chunk(audio={"transcript": "b"})
CONVERSE = (
    {"contentBlockStart": {"contentBlockIndex": 0, "start": {"toolUse": "a"}}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "b"}}}},
)


@pytest.mark.parametrize("bad", [AUDIO, CONVERSE])
def test_two_chunks_that_contradict_each_other_are_shown_unchanged(bad: tuple[Any, ...]) -> None:
    """The same part is text in one and an object in the other."""
    assert answer(*bad) == list(bad)


def test_other_streams_are_lists() -> None:
    """With the names of the events; at most 1000 of them."""
    data = b"event: x\ndata: {}\n\n" * 1001

    kept, is_more = streams.read_events(data, False, json.loads)
    assert (kept[0], len(kept), is_more) == ({"event": "x", "data": {}}, 1000, True)
    assert streams.read_lines('{"a": 1}\n\n{"a', True, json.loads) == ([{"a": 1}], False)


@given(st.lists(hostile, max_size=5))
def test_no_stream_raises(pieces: list[Any]) -> None:
    """Whatever it contains."""
    json.dumps(answer(*pieces))
    for piece in pieces:
        usage.usage_of(piece)


# --- longer than the limit of a body ---


def passed(chunks: Iterable[bytes], content_type: str, encoding: str = "", limit: int = LIMIT) -> Content:
    """Return the trace's output for an answer in these chunks."""
    exchange, body = Exchange("GET", "/", {}, response_type=content_type, response_encoding=encoding), Body(limit)
    for each in chunks:
        if body.add(each):
            follow_answer(exchange, body)
    return read(body.kept, body.size, content_type, encoding, limit, redactor, body.follower)


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def used(stream: Stream) -> dict[str, int]:
    """Return the tokens of a stream, in MLflow's names."""
    return {**USAGE, **({"cache_read_input_tokens": stream.cached} if stream.cached else {})}


LONG = pytest.mark.parametrize("stream", STREAMS, ids=[stream.name for stream in STREAMS])


@LONG
def test_a_long_stream_keeps_its_text_its_end_and_its_usage(stream: Stream) -> None:
    """A megabyte of the protocol's chunks, with little text."""
    chunks, said = written(stream)
    content = passed(chunks, stream.content_type)
    text = stream.text(content.value)

    assert content.usage == used(stream)
    assert (previews.of_answer(content.value) or "").startswith(said[:1000])
    assert text == said or (len(said) > LIMIT and text.endswith(said[-20_000:]) and text.startswith(said[:20_000]))
    assert content.cut or text == said


@LONG
def test_both_ends_of_a_long_text_are_kept(stream: Stream) -> None:
    """Between them is the number of omitted bytes."""
    chunks, said = written(stream, word=300)
    content = passed(chunks, stream.content_type)
    text = stream.text(content.value)

    assert content.usage == used(stream)
    assert len(text) <= LIMIT + 100
    assert (text[:20_000], text[-20_000:]) == (said[:20_000], said[-20_000:])
    assert "characters left out]" in text
    assert content.cut


@LONG
@pytest.mark.parametrize("size", [7, 1000, 40_000])
def test_chunk_boundaries_of_a_long_stream_do_not_matter(stream: Stream, size: int) -> None:
    """They may be in the middle of an event or of a character."""
    chunks, _ = written(stream, wire=200_000)
    data = b"".join(chunks)

    assert passed(in_pieces(data, size), stream.content_type) == passed(chunks, stream.content_type)


@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_long_compressed_stream_is_read(encoding: str) -> None:
    """With short and long chunks, and boundaries anywhere."""
    stream = STREAMS[0]
    chunks, said = written(stream)
    data = ENCODERS[encoding][0](b"".join(chunks))
    content = passed(in_pieces(data, 1000), SSE, encoding, limit=32_768)

    assert content.usage == used(stream)
    assert stream.text(content.value) == said


def test_a_stream_that_is_compressed_chunk_by_chunk_is_read() -> None:
    """As by middleware that compresses each chunk: the whole stream is longer than the limit."""
    stream = STREAMS[0]
    chunks, said = written(stream)
    encoder = zlib.compressobj(wbits=31)
    pieces = [encoder.compress(each) + encoder.flush(zlib.Z_SYNC_FLUSH) for each in chunks]
    assert sum(map(len, pieces)) > LIMIT // 2
    content = passed([*pieces, encoder.flush()], SSE, "gzip", limit=LIMIT // 2)

    assert (content.usage, stream.text(content.value)) == (used(stream), said)


def test_a_long_compressed_stream_takes_little_memory_while_it_passes() -> None:
    """It is decoded as fast as it arrives."""
    exchange, body = Exchange("GET", "/", {}, response_type=SSE, response_encoding="gzip"), Body(LIMIT)
    encoder = zlib.compressobj(level=0, wbits=31)
    for each in written(STREAMS[0])[0]:
        if body.add(encoder.compress(each) + encoder.flush(zlib.Z_SYNC_FLUSH)):
            follow_answer(exchange, body)

    assert body.size > 1_000_000
    assert body.held < 3 * LIMIT


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_comments_and_names_of_a_long_stream(end: str) -> None:
    """All that the standard allows."""
    stream = STREAMS[0]
    chunks, said = written(stream)
    data = b": ping\n\n" + b"".join(b"event: x\nid: 1\n" + each + b": ping\n\n" for each in chunks)
    content = passed(in_pieces(data.replace(b"\n", end.encode()), 999), SSE)

    assert (content.usage, stream.text(content.value)) == (used(stream), said)


def test_an_unknown_long_stream_keeps_both_ends_and_its_usage() -> None:
    """Events and lines in a proprietary format."""
    events = [{"number": number, "text": "word " * 10} for number in range(10_000)]
    last = {"number": -1, "usage": {"input_tokens": 11, "output_tokens": 22, "total_tokens": 33}}
    for content_type, data in (
        (SSE, b"".join(event(each).encode() for each in [*events, last])),
        ("application/x-ndjson", b"".join(json.dumps(each).encode() + b"\n" for each in [*events, last])),
    ):
        content = passed(in_pieces(data, 1000), content_type)
        assert (content.value[0], content.value[-1], content.usage) == (events[0], last, USAGE)
        assert content.cut
        assert streams.LEFT_OUT in content.value


def test_a_long_text_keeps_both_ends() -> None:
    """An answer in plain text, streamed."""
    said = " ".join(f"word-{number}" for number in range(30_000))
    content = passed(in_pieces(said.encode(), 50), "text/plain")

    assert content.value.startswith("word-0 word-1 ")
    assert content.value.endswith(" word-29998 word-29999")


def test_a_long_json_answer_keeps_its_usage() -> None:
    """The usage is at its end."""
    usage = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
    message = {"role": "assistant", "content": "word " * 40_000}
    answer = json.dumps({"choices": [{"message": message}], "usage": usage, "service_tier": "default"})

    assert passed([answer.encode()], "application/json").usage == USAGE


SECRETS = [
    f"password: {MARKER}{MARKER}\n",
    f'{{"password": "{MARKER} {MARKER}"}} ',
    f"sk-proj-{MARKER}{MARKER}abcdef1234 ",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", [STREAMS[0], STREAMS[3]], ids=["chat", "anthropic"])
def test_no_secret_survives_where_a_text_is_truncated(secret: str, form: Stream) -> None:
    """At the end of the first part, at the beginning of the last one, or over several pieces."""
    limit, size = 8192, 60_000
    for place in (limit // 2, size - limit // 2, size - limit // 2 - texts.CONTEXT):
        for shift in range(-60, 60, 8):
            before = ("word " * size)[: place + shift] + "\n"
            text = before + secret + ("word " * size)[: size - len(before)]
            content = passed((each.encode() for each in form.chunks(iter(in_words(text, 997)))), SSE, limit=limit)
            assert MARKER[:6] not in json.dumps(content.value)
            assert form.text(content.value).endswith(text[-100:])


def in_words(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@given(stream_bodies(), st.integers(1, 200), st.sampled_from([50, 300]))
def test_no_secret_of_a_stream_survives(sample: Sample, size: int, limit: int) -> None:
    """In every kind of stream, even if split over pieces, and however little of it is kept."""
    content = passed(in_pieces(sample.data, size), sample.content_type, limit=limit)

    assert MARKER[:6] not in json.dumps(content.value)


# --- agents, whose tools return more than they answer ---

HITS = "what a tool has found, " * 1000


def ag_ui_tools(said: list[str]) -> Iterable[Any]:
    for number in range(40):
        yield {"type": "TOOL_CALL_START", "toolCallId": f"c{number}", "toolCallName": "search"}
        yield {"type": "TOOL_CALL_RESULT", "messageId": f"t{number}", "toolCallId": f"c{number}", "content": HITS}
    yield from ({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": word} for word in said)
    yield {"type": "RUN_FINISHED", "threadId": "t", "runId": "r", "result": {"usage": USAGE}}


def ui_tools(said: list[str]) -> Iterable[Any]:
    for number in range(40):
        yield {"type": "tool-input-available", "toolCallId": f"c{number}", "toolName": "search", "input": {}}
        yield {"type": "tool-output-available", "toolCallId": f"c{number}", "output": {"hits": [HITS]}}
    yield {"type": "text-start", "id": "t"}
    yield from ({"type": "text-delta", "id": "t", "delta": word} for word in said)
    yield {"type": "finish", "messageMetadata": {"totalUsage": USAGE}}


def ui_status(said: list[str]) -> Iterable[Any]:
    yield {"type": "start", "messageId": "m"}
    yield from ({"type": "data-status", "data": {"step": number, "is": "searching"}} for number in range(5000))
    yield {"type": "text-start", "id": "t"}
    yield from ({"type": "text-delta", "id": "t", "delta": word} for word in said)
    yield {"type": "finish", "messageMetadata": {"totalUsage": USAGE}}


def response_tools(said: list[str]) -> Iterable[Any]:
    done = "response.output_item.done"
    for number in range(40):
        yield {"type": done, "item": {"type": "function_call", "id": f"f{number}", "name": "search", "arguments": "{}"}}
        yield {"type": done, "item": {"type": "function_call_output", "call_id": f"f{number}", "output": HITS}}
    yield from ({"type": "response.output_text.delta", "item_id": "m", "delta": word} for word in said)
    yield {"type": "response.in_progress", "response": {"usage": USAGE}}


def anthropic_tools(said: list[str]) -> Iterable[Any]:
    yield {"type": "message_start", "message": {"role": "assistant", "usage": {"input_tokens": 11}}}
    for number in range(40):
        block = {"type": "web_search_tool_result", "content": [{"encrypted_content": HITS}]}
        yield {"type": "content_block_start", "index": number, "content_block": block}
    delta = {"type": "content_block_delta", "index": 40}
    yield from ({**delta, "delta": {"type": "text_delta", "text": word}} for word in said)
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 22}}


@pytest.mark.parametrize("make", [ag_ui_tools, ui_tools, ui_status, response_tools, anthropic_tools])
def test_the_end_of_an_answer_is_kept_after_long_tool_results(make: Callable[[list[str]], Iterable[Any]]) -> None:
    """A megabyte of tools' results: some of that is left out, but not the final text."""
    said = [f"word{number} " for number in range(300)]
    content = passed((event(each).encode() for each in make(said)), SSE)

    text = json.dumps(content.value)
    assert "".join(said) in text
    assert "what a tool has found" in text or make is ui_status
    assert content.cut
    assert content.usage == USAGE or make is response_tools


def test_both_ends_of_long_texts_are_kept_with_any_characters() -> None:
    """Each takes four bytes in memory; and there are two texts."""
    thought = [f" t{number}\N{FOX FACE}" for number in range(20_000)]
    said = [f" w{number}\N{FOX FACE}" for number in range(20_000)]
    pieces = [chunk(reasoning_content=word) for word in thought] + [chunk(content=word) for word in said]
    message = passed((event(each).encode() for each in pieces), SSE).value["choices"][0]["message"]

    for text, words in ((message["reasoning_content"], thought), (message["content"], said)):
        whole = "".join(words)
        assert (text[:3000], text[-3000:]) == (whole[:3000], whole[-3000:])
        assert "characters left out]" in text


# --- formats that the protocols' own pages do not show ---


def test_the_text_of_a_delta_is_found_under_each_of_its_names() -> None:
    """In AI SDK's UI message, in version 5's full stream, and in version 4's."""
    for name in ("delta", "text", "textDelta"):
        whole = answer({"type": "start-step"}, *[{"type": "text-delta", "id": "t", name: word} for word in ("a", "b")])
        assert whole["parts"] == [{"type": "text", "text": "ab"}]
    mastra = [{"type": "text-delta", "payload": {"id": "t", "text": word}} for word in ("a", "b")]
    assert answer(*mastra) == mastra


def test_content_in_parts_is_read() -> None:
    """The reasoning of Mistral's models, and the transcripts of OpenAI's speech."""
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    whole = answer(chunk(content=thinking), chunk(content=thinking), chunk(content="Yes"), chunk(content="."))
    assert whole["choices"][0]["message"] == {"role": "assistant", "thinking": "hmhm", "content": "Yes."}
    aloud = [chunk(audio={"id": "a"}), chunk(audio={"transcript": "Hel"}), chunk(audio={"transcript": "lo"})]
    assert answer(*aloud)["choices"][0]["message"]["audio"] == {"id": "a", "transcript": "Hello"}


def test_the_reasoning_of_an_incomplete_response_is_kept() -> None:
    """The client has disconnected during the reasoning."""
    deltas = [
        {"type": "response.output_item.added", "item": {"type": "reasoning", "id": "r", "summary": []}},
        *[{"type": "response.reasoning_summary_text.delta", "item_id": "r", "delta": word} for word in ("a", "b")],
        {"type": "response.refusal.delta", "item_id": "m", "delta": "no"},
        {"type": "response.custom_tool_call_input.delta", "item_id": "c", "delta": "x"},
    ]
    text = json.dumps(answer(*deltas)["output"])
    assert all(each in text for each in ('"ab"', '"no"', '"x"'))


TOKENS = {"input_tokens": 11, "output_tokens": 22}


@pytest.mark.parametrize(
    "last",
    [
        {"type": "message-end", "delta": {"usage": {"billed_units": {"input_tokens": 1}, "tokens": TOKENS}}},
        {"event_type": "stream-end", "response": {"meta": {"tokens": TOKENS}}},
        chunk(content="") | {"x_groq": {"usage": {"prompt_tokens": 11, "completion_tokens": 22}}},
        {"event": "data", "data": {"type": "AIMessageChunk", "usage_metadata": TOKENS}},
        {"event": "messages", "data": [{"usage_metadata": TOKENS}, {"langgraph_step": 1}]},
        {"object": "thread.run", "usage": {"prompt_tokens": 11, "completion_tokens": 22}},
        {"metadata": {"usage": {"inputTokens": 11, "outputTokens": 22}}},
    ],
    ids=["cohere", "cohere-1", "groq", "langserve", "langgraph", "assistants", "bedrock"],
)
def test_other_places_of_usage(last: Any) -> None:
    """Among named events, in a list, inside another object: in short and in long streams."""
    assert usage.usage_of(last) == USAGE
    name = last.get("event", "") if isinstance(last, dict) else ""
    data = event(last["data"], name) if name else event(last)
    assert passed([event({"a": 1}).encode(), data.encode()], SSE).usage == USAGE
    long = [event({"number": number}).encode() for number in range(9000)]
    assert passed([*long, data.encode()], SSE).usage == USAGE


@pytest.mark.parametrize("count", [-1, 2**53 + 1, 2**63 - 1, True, 1.5, "1"])
def test_invalid_token_counts_are_ignored(count: Any) -> None:
    """A server adds them up in a 64-bit column, and would reject the trace."""
    assert usage.usage_of({"usage": {"prompt_tokens": count, "completion_tokens": 1}}) is None
    assert usage.usage_of({"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": count}}) == {
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 2,
    }


def test_lines_declared_as_json_are_lines() -> None:
    """Short ones like long ones."""
    stream = next(each for each in STREAMS if each.name == "ollama")
    for wire in (3000, 200_000):
        chunks, said = written(stream, wire)
        content = passed(chunks, "application/json")
        assert (stream.text(content.value), content.usage) == (said, used(stream))


# --- hostile ones ---


def many_choices() -> Iterable[bytes]:
    return (
        event(chunk(number % 1000, content="x" * 20, **{f"k{number}": ["y"] * 20})).encode() for number in range(9000)
    )


def many_calls() -> Iterable[bytes]:
    calls = ([{"index": number % 1000, "function": {"arguments": "x" * 40}}] for number in range(9000))
    return (event(chunk(tool_calls=each)).encode() for each in calls)


def many_items() -> Iterable[bytes]:
    kind = "response.output_item.done"
    return (event({"type": kind, "item": {"id": str(number), "x": [[]] * 30}}).encode() for number in range(9000))


def endless_line() -> Iterable[bytes]:
    return (event(chunk(content="a")).encode(), b"data: ", *[b"x" * 200] * 20_000)


def huge_event() -> Iterable[bytes]:
    return (event(chunk(content="a")).encode(), b'data: {"a": "', *[b"x" * 20_000] * 100, b'"}\n\n')


def deep_event() -> Iterable[bytes]:
    return (
        event(chunk(content="a")).encode(),
        b"data: " + b'{"a":' * 12_000 + b"\n\n",
        *[event(chunk(content="b")).encode()] * 2000,
    )


def no_events() -> Iterable[bytes]:
    return (event(chunk(content="a")).encode(), *[b"\n" * 1000] * 2000)


HOSTILE = [many_choices, many_calls, many_items, endless_line, huge_event, deep_event, no_events]


@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_stream_takes_little_memory(make: Callable[[], Iterable[bytes]]) -> None:
    """Megabytes of chunks; and its size in memory counts."""
    exchange, body = Exchange("GET", "/", {}, response_type=SSE), Body(LIMIT)
    tracemalloc.start()
    try:
        for each in make():
            if body.add(each):
                follow_answer(exchange, body)
        took, held = tracemalloc.get_traced_memory()[0], body.held
    finally:
        tracemalloc.stop()
    value = read(body.kept, body.size, SSE, "", LIMIT, redactor, body.follower).value

    assert took < 8 * LIMIT
    assert took < 1.5 * held + 20_000
    assert len(json.dumps(value)) < 8 * LIMIT


@given(st.lists(hostile, max_size=5), st.integers(1, 300))
def test_no_long_stream_raises(pieces: list[Any], size: int) -> None:
    """Whatever it contains, also among valid events."""
    data = sse(*chat(["a", "b"]), *pieces, *chat(["c", "d"]) * 2)

    json.dumps(passed(in_pieces(data, size), SSE, limit=200).value)


def test_a_tool_input_of_a_wrong_type_does_not_spoil_a_long_stream() -> None:
    """It is kept unchanged, beside the text."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "partial_json": ["a"]}}
    delta = {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "hello "}}

    value = passed([sse(block, *[delta] * 20)], SSE, limit=200).value

    assert [each["type"] for each in value["content"]] == ["tool_use", "text"]
    assert value["content"][0]["input"] == ["a"]


# --- read back from a server ---


@pytest.mark.once
@LONG
@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_a_long_stream_is_stored(run_app: AppRunner, request_id: str, name: str, stream: Stream) -> None:
    """With its usage, its end, and the cost that the server computes."""
    app = run_app(name)
    chunks, said = written(stream)
    data = b"".join(chunks)
    answer = app.post("/echo", data, content_type=stream.content_type, x_request_id=request_id)
    assert answer.content == data

    trace = app.traces.one(request_id)
    root = next(span for span in trace.data.spans if span.parent_id is None)
    assert stream.text(root.outputs).endswith(said[-20_000:])
    assert root.attributes["mlflow.chat.tokenUsage"] == used(stream)
    assert json.loads(trace.info.trace_metadata["mlflow.trace.tokenUsage"]) == used(stream)
    assert root.attributes["http.response.body.size"] == len(data)
