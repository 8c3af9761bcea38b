"""Streams of a megabyte, in each protocol's format: little text in a lot of markup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SIZE = 1_000_000
"""Minimal size of a stream in bytes."""

SSE = "text/event-stream"
USAGE = {"input_tokens": 11, "output_tokens": 22, "total_tokens": 33}
"""The usage that each of them reports, in MLflow's names."""


@dataclass(frozen=True)
class Stream:
    """One protocol.

    Attributes:
        name: For the test's id.
        content_type: Its header.
        chunks: A function that encodes words as the protocol's chunks.
        text: A function that extracts the answer's text.
        cached: Tokens that it reports as cached.
    """

    name: str
    content_type: str
    chunks: Callable[[Iterator[str]], Iterator[str]]
    text: Callable[[Any], str]
    cached: int = 0


def words(size: int = 0) -> Iterator[str]:
    """Return distinct words, of a given size if requested."""
    number = 0
    while True:
        yield f" w{number}é" + "x" * size
        number += 1


def written(stream: Stream, wire: int = SIZE, word: int = 0) -> tuple[list[bytes], str]:
    """Return the chunks of a stream of that size, and the text in it."""
    said: list[str] = []

    def taken() -> Iterator[str]:
        source = words(word)
        while size[0] < wire:
            said.append(next(source))
            yield said[-1]

    size = [0]
    chunks = []
    for chunk in stream.chunks(taken()):
        chunks.append(chunk.encode())
        size[0] += len(chunks[-1])
    return chunks, "".join(said)


def event(value: Any, name: str = "") -> str:
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(value)}\n\n"


def chat(said: Iterator[str]) -> Iterator[str]:
    known = {"id": "chatcmpl-" + "a" * 24, "object": "chat.completion.chunk", "created": 1764200000, "model": "gpt-5"}
    for word in said:
        choice = {"index": 0, "delta": {"content": word}, "logprobs": None, "finish_reason": None}
        yield event({**known, "system_fingerprint": "fp_0123456789", "choices": [choice], "obfuscation": "abcdefgh"})
    yield event({**known, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}
    yield event({**known, "choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 5}}})
    yield "data: [DONE]\n\n"


def responses(said: Iterator[str]) -> Iterator[str]:
    yield event({"type": "response.created", "response": {"id": "resp_1", "output": []}}, "response.created")
    item: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    yield event({"type": "response.output_item.added", "output_index": 0, "item": item})
    text = ""
    for number, word in enumerate(said):
        text += word
        kind = "response.output_text.delta"
        delta = {"type": kind, "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word}
        yield event({**delta, "sequence_number": number, "logprobs": []}, kind)
    item = {**item, "content": [{"type": "output_text", "text": text, "annotations": []}]}
    yield event({"type": "response.output_item.done", "output_index": 0, "item": item})
    usage = {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 22, "total_tokens": 33}
    last = {"id": "resp_1", "object": "response", "output": [item], "usage": usage, "metadata": {}}
    yield event({"type": "response.completed", "response": last}, "response.completed")


def agent(said: Iterator[str]) -> Iterator[str]:
    text = ""
    for word in said:
        text += word
        yield event({"type": "response.output_text.delta", "item_id": "1", "delta": word, "custom_outputs": None})
    content = [{"type": "output_text", "text": text}]
    item = {"id": "1", "type": "message", "role": "assistant", "content": content}
    yield event({"type": "response.output_item.done", "item": item})
    usage = {"input_tokens": 11, "output_tokens": 22, "total_tokens": 33}
    yield event({"type": "response.completed", "response": {"output": [item], "usage": usage}})
    yield "data: [DONE]\n\n"


def anthropic(said: Iterator[str]) -> Iterator[str]:
    usage = {"input_tokens": 6, "cache_read_input_tokens": 5, "output_tokens": 1}  # cached ones are counted apart
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    yield event({"type": "message_start", "message": message}, "message_start")
    block = {"type": "text", "text": ""}
    yield event({"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start")
    yield event({"type": "ping"}, "ping")
    for word in said:
        delta = {"type": "text_delta", "text": word}
        yield event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
    yield event({"type": "content_block_stop", "index": 0}, "content_block_stop")
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 22}}
    yield event(end, "message_delta")
    yield event({"type": "message_stop"}, "message_stop")


def gemini_pieces(said: Iterator[str]) -> Iterator[dict[str, Any]]:
    for word in said:
        content = {"parts": [{"text": word}], "role": "model"}
        usage = {"promptTokenCount": 11, "totalTokenCount": 11}
        yield {"candidates": [{"content": content, "index": 0}], "usageMetadata": usage, "modelVersion": "gemini-3"}
    usage = {"promptTokenCount": 11, "candidatesTokenCount": 22, "totalTokenCount": 33, "cachedContentTokenCount": 5}
    end = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP", "index": 0}
    yield {"candidates": [end], "usageMetadata": usage, "modelVersion": "gemini-3"}


def gemini(said: Iterator[str]) -> Iterator[str]:
    return map(event, gemini_pieces(said))


def gemini_array(said: Iterator[str]) -> Iterator[str]:
    start = "["
    for piece in gemini_pieces(said):
        yield start + json.dumps(piece, indent=2)
        start = "\n,\r\n"
    yield "\n]\n"


def ag_ui(said: Iterator[str]) -> Iterator[str]:
    yield event({"type": "RUN_STARTED", "threadId": "t", "runId": "r"})
    yield event({"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"})
    for word in said:
        yield event({"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": word})
    yield event({"type": "TEXT_MESSAGE_END", "messageId": "m"})
    usage = {"inputTokens": 11, "outputTokens": 22, "totalTokens": 33}
    yield event({"type": "RUN_FINISHED", "threadId": "t", "runId": "r", "result": {"usage": usage}})


def ui_messages(said: Iterator[str]) -> Iterator[str]:
    yield event({"type": "start", "messageId": "m"})
    yield event({"type": "start-step"})
    yield event({"type": "text-start", "id": "t"})
    for word in said:
        yield event({"type": "text-delta", "id": "t", "delta": word})
    yield event({"type": "text-end", "id": "t"})
    yield event({"type": "finish-step"})
    usage = {"inputTokens": 11, "outputTokens": 22, "totalTokens": 33, "cachedInputTokens": 5}
    yield event({"type": "finish", "messageMetadata": {"totalUsage": usage}})
    yield "data: [DONE]\n\n"


def data_stream(said: Iterator[str]) -> Iterator[str]:
    yield 'f:{"messageId":"m"}\n'
    for word in said:
        yield f"0:{json.dumps(word)}\n"
    yield 'e:{"finishReason":"stop","usage":{"promptTokens":11,"completionTokens":22},"isContinued":false}\n'
    yield 'd:{"finishReason":"stop","usage":{"promptTokens":11,"completionTokens":22}}\n'


def ollama(said: Iterator[str]) -> Iterator[str]:
    known = {"model": "llama", "created_at": "2026-11-27T10:00:00.000000Z"}
    for word in said:
        yield json.dumps({**known, "message": {"role": "assistant", "content": word}, "done": False}) + "\n"
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    yield json.dumps({**known, **end, "prompt_eval_count": 11, "eval_count": 22}) + "\n"


def chat_lines(said: Iterator[str]) -> Iterator[str]:
    for each in chat(said):
        line = each.removeprefix("data: ").removesuffix("\n\n")
        if line != "[DONE]":
            yield line + "\n"


def _chat_text(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _response_text(answer: Any) -> str:
    return str(answer["output"][0]["content"][0]["text"])


def _parts_text(answer: Any) -> str:
    return str(answer["parts"][0]["text"])


def _gemini_text(answer: Any) -> str:
    return str(answer["candidates"][0]["content"]["parts"][0]["text"])


STREAMS = [
    Stream("chat", SSE, chat, _chat_text, 5),
    Stream("responses", SSE, responses, _response_text, 5),
    Stream("agent", SSE, agent, _response_text),
    Stream("anthropic", SSE, anthropic, lambda answer: str(answer["content"][0]["text"]), 5),
    Stream("gemini", SSE, gemini, _gemini_text, 5),
    Stream("gemini-array", "application/json; charset=UTF-8", gemini_array, _gemini_text, 5),
    Stream("ag-ui", SSE, ag_ui, lambda answer: str(answer["messages"][0]["content"])),
    Stream("ui-messages", SSE, ui_messages, _parts_text, 5),
    Stream("data-stream", "text/plain; charset=utf-8", data_stream, _parts_text),
    Stream("ollama", "application/x-ndjson", ollama, lambda answer: str(answer["message"]["content"])),
    Stream("json-lines", "application/jsonl", chat_lines, _chat_text, 5),
]
