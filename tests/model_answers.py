"""Each provider's documented request to a model and its answer, and what its trace must report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

SAID = "the spice must flow"
"""The text of each request and each answer."""


@dataclass(frozen=True)
class Exchanged:
    """A request and its answer.

    Attributes:
        name: For the test's id.
        request: The request's body.
        answer: The answer: a value, or the pieces of a stream.
        usage: The usage that MLflow must get.
        model: The model that answered.
        provider: As MLflow names it.
        system: As OpenTelemetry names it.
        path: The request's path.
        kind: The answer's content type.
    """

    name: str
    request: Any
    answer: Any
    usage: dict[str, int]
    model: str | None
    provider: str | None
    system: str | None = None
    path: str = "/chat"
    kind: str = "application/json"

    @property
    def body(self) -> bytes:
        """The answer on the wire."""
        if self.kind == "application/json":
            return json.dumps(self.answer).encode()
        if self.kind == "application/x-ndjson":
            return "".join(f"{json.dumps(piece)}\n" for piece in self.answer).encode()
        return "".join(f"data: {json.dumps(piece)}\n\n" for piece in self.answer).encode()


def used(read: int, written: int, total: int = 0, **cached: int) -> dict[str, int]:
    return {"input_tokens": read, "output_tokens": written, "total_tokens": total or read + written, **cached}


SSE, LINES = "text/event-stream", "application/x-ndjson"
ASKED = {"messages": [{"role": "user", "content": SAID}]}
OF_CHAT = {
    "prompt_tokens": 1117,
    "completion_tokens": 46,
    "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
CHAT = used(1117, 46, cache_read_input_tokens=1024)
CHAT_HEAD = {"id": "chatcmpl-B9MB", "object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18"}
RESPONSES_USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 12},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 123,
}
ITEM = {"type": "message", "id": "msg_67", "role": "assistant", "content": [{"type": "output_text", "text": SAID}]}
RESPONSE = {
    "id": "resp_67",
    "object": "response",
    "model": "gpt-4.1-2025-04-14",
    "output": [ITEM],
    "usage": RESPONSES_USAGE,
}
CLAUDE = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 188,
    "cache_read_input_tokens": 1000,
    "cache_creation": {"ephemeral_5m_input_tokens": 88, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 393,
}
CLAUDE_USED = used(
    1209,
    393,
    cache_read_input_tokens=1000,
    cache_creation_input_tokens=188,
    cache_creation_input_tokens_above_1hr=100,
)
MESSAGE = {
    "id": "msg_01XF",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-20250514",
    "content": [{"type": "text", "text": SAID}],
    "stop_reason": "end_turn",
}
GEMINI_USAGE = {
    "promptTokenCount": 13,
    "candidatesTokenCount": 800,
    "thoughtsTokenCount": 100,
    "cachedContentTokenCount": 5,
    "totalTokenCount": 913,
}
GEMINI_PIECE = {"candidates": [{"content": {"parts": [{"text": SAID}], "role": "model"}, "index": 0}]}
GEMINI_ASKED = {"contents": [{"parts": [{"text": SAID}]}]}
CONVERSE_USAGE = {"inputTokens": 30, "outputTokens": 628, "totalTokens": 1658, "cacheReadInputTokens": 1000}
CONVERSE_ASKED = {
    "modelId": "us.anthropic.claude-3-5-sonnet-20240620-v1:0",
    "messages": [{"role": "user", "content": [{"text": SAID}]}],
}
TITAN_METRICS = {"inputTokenCount": 5, "outputTokenCount": 18, "invocationLatency": 10, "firstByteLatency": 5}
OLLAMA_END = {
    "model": "llama3.2",
    "created_at": "2023-08-04T19:22:45Z",
    "done": True,
    "prompt_eval_count": 26,
    "eval_count": 298,
}
AGENT_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}

ALL = (
    Exchanged(
        "openai-chat",
        {**ASKED, "model": "gpt-4o-mini"},
        {**CHAT_HEAD, "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}}], "usage": OF_CHAT},
        CHAT,
        "gpt-4o-mini-2024-07-18",
        "openai",
    ),
    Exchanged(
        "openai-chat-stream",
        {**ASKED, "model": "gpt-4o-mini", "stream": True},
        [
            {**CHAT_HEAD, "choices": [{"index": 0, "delta": {"role": "assistant", "content": SAID}}], "usage": None},
            {**CHAT_HEAD, "choices": [], "usage": OF_CHAT},
        ],
        CHAT,
        "gpt-4o-mini-2024-07-18",
        "openai",
        kind=SSE,
    ),
    Exchanged(
        "openai-completions",
        {"model": "gpt-3.5-turbo-instruct", "prompt": SAID},
        {
            "object": "text_completion",
            "model": "gpt-3.5-turbo-instruct",
            "choices": [{"text": SAID, "index": 0}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        },
        used(5, 7),
        "gpt-3.5-turbo-instruct",
        "openai",
    ),
    Exchanged(
        "openai-responses",
        {"model": "gpt-4.1", "input": SAID},
        RESPONSE,
        used(36, 87, cache_read_input_tokens=12),
        "gpt-4.1-2025-04-14",
        "openai",
    ),
    Exchanged(
        "openai-responses-stream",
        {"model": "gpt-4.1", "input": SAID, "stream": True},
        [
            {"type": "response.created", "response": {"id": "resp_67", "output": []}},
            {"type": "response.output_text.delta", "item_id": "msg_67", "output_index": 0, "delta": SAID},
            {"type": "response.completed", "response": RESPONSE},
        ],
        used(36, 87, cache_read_input_tokens=12),
        "gpt-4.1-2025-04-14",
        "openai",
        kind=SSE,
    ),
    Exchanged(
        "openai-embeddings",
        {"model": "text-embedding-3-small", "input": SAID},
        {
            "object": "list",
            "data": [{"object": "embedding", "embedding": [0.0023, -0.009], "index": 0}],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 8, "total_tokens": 8},
        },
        used(8, 0),
        "text-embedding-3-small",
        "openai",
    ),
    Exchanged(
        "openai-embeddings-long",
        {"input": SAID},
        {
            "object": "list",
            "data": [{"object": "embedding", "embedding": [0.0023] * 20_000, "index": 0}],
            "model": "text-embedding-3-large",
            "usage": {"prompt_tokens": 8, "total_tokens": 8},
        },
        used(8, 0),
        "text-embedding-3-large",
        "openai",
    ),
    Exchanged(
        "anthropic",
        {**ASKED, "model": "claude-sonnet-4-0"},
        {**MESSAGE, "usage": CLAUDE},
        CLAUDE_USED,
        "claude-sonnet-4-20250514",
        "anthropic",
    ),
    Exchanged(
        "anthropic-stream",
        {**ASKED, "model": "claude-sonnet-4-0", "stream": True},
        [
            {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**CLAUDE, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SAID}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 393}},
            {"type": "message_stop"},
        ],
        CLAUDE_USED,
        "claude-sonnet-4-20250514",
        "anthropic",
        kind=SSE,
    ),
    Exchanged(
        "gemini",
        GEMINI_ASKED,
        {**GEMINI_PIECE, "usageMetadata": GEMINI_USAGE, "modelVersion": "gemini-2.5-flash"},
        used(13, 900, cache_read_input_tokens=5),
        "gemini-2.5-flash",
        "gemini",
        "gcp.gemini",
        "/v1beta/models/gemini-2.5-flash:generateContent",
    ),
    Exchanged(
        "gemini-stream",
        GEMINI_ASKED,
        [GEMINI_PIECE, {**GEMINI_PIECE, "usageMetadata": GEMINI_USAGE, "modelVersion": "gemini-2.5-flash"}],
        used(13, 900, cache_read_input_tokens=5),
        "gemini-2.5-flash",
        "gemini",
        "gcp.gemini",
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        SSE,
    ),
    Exchanged(
        "bedrock-converse",
        CONVERSE_ASKED,
        {
            "output": {"message": {"role": "assistant", "content": [{"text": SAID}]}},
            "stopReason": "end_turn",
            "usage": CONVERSE_USAGE,
            "metrics": {"latencyMs": 1275},
        },
        used(1030, 628, cache_read_input_tokens=1000),
        "us.anthropic.claude-3-5-sonnet-20240620-v1:0",
        "bedrock",
        "aws.bedrock",
    ),
    Exchanged(
        "bedrock-converse-stream",
        CONVERSE_ASKED,
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": SAID}, "contentBlockIndex": 0}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": CONVERSE_USAGE, "metrics": {"latencyMs": 1275}}},
        ],
        used(1030, 628, cache_read_input_tokens=1000),
        "us.anthropic.claude-3-5-sonnet-20240620-v1:0",
        "bedrock",
        "aws.bedrock",
        kind=LINES,
    ),
    Exchanged(
        "bedrock-invoke-anthropic",
        {"anthropic_version": "bedrock-2023-05-31", **ASKED},
        {**MESSAGE, "id": "msg_bdrk_01XF", "usage": {"input_tokens": 14, "output_tokens": 9}},
        used(14, 9),
        "claude-sonnet-4-20250514",
        "bedrock",
        "aws.bedrock",
        "/model/anthropic.claude-sonnet-4-20250514-v1:0/invoke",
    ),
    Exchanged(
        "bedrock-invoke-titan",
        {"inputText": SAID},
        {"inputTextTokenCount": 5, "results": [{"tokenCount": 18, "outputText": SAID, "completionReason": "FINISH"}]},
        used(5, 18),
        "amazon.titan-text-express-v1",
        "bedrock",
        "aws.bedrock",
        "/model/amazon.titan-text-express-v1/invoke",
    ),
    Exchanged(
        "bedrock-invoke-titan-stream",
        {"inputText": SAID},
        [
            {"outputText": SAID, "index": 0, "totalOutputTextTokenCount": None, "inputTextTokenCount": 5},
            {
                "outputText": "",
                "index": 0,
                "totalOutputTextTokenCount": 18,
                "completionReason": "FINISH",
                "inputTextTokenCount": 5,
                "amazon-bedrock-invocationMetrics": TITAN_METRICS,
            },
        ],
        used(5, 18),
        "amazon.titan-text-express-v1",
        "bedrock",
        "aws.bedrock",
        "/model/amazon.titan-text-express-v1/invoke-with-response-stream",
        LINES,
    ),
    Exchanged(
        "bedrock-invoke-llama",
        {"prompt": SAID},
        {"generation": SAID, "prompt_token_count": 11, "generation_token_count": 22, "stop_reason": "stop"},
        used(11, 22),
        "meta.llama3-70b-instruct-v1:0",
        "bedrock",
        "aws.bedrock",
        "/model/meta.llama3-70b-instruct-v1:0/invoke",
    ),
    Exchanged(
        "ollama",
        {**ASKED, "model": "llama3.2"},
        {**OLLAMA_END, "message": {"role": "assistant", "content": SAID}},
        used(26, 298),
        "llama3.2",
        "ollama",
    ),
    Exchanged(
        "ollama-stream",
        {**ASKED, "model": "llama3.2"},
        [
            {"model": "llama3.2", "message": {"role": "assistant", "content": SAID}, "done": False},
            {**OLLAMA_END, "message": {"role": "assistant", "content": ""}},
        ],
        used(26, 298),
        "llama3.2",
        "ollama",
        kind=LINES,
    ),
    Exchanged(
        "ollama-embed",
        {"model": "all-minilm", "input": SAID},
        {"model": "all-minilm", "embeddings": [[0.01, -0.02]], "total_duration": 14143917, "prompt_eval_count": 8},
        used(8, 0),
        "all-minilm",
        "ollama",
    ),
    Exchanged(
        "mlflow-responses-agent",
        {"input": [{"role": "user", "content": SAID}]},
        {
            "object": "response",
            "output": [ITEM],
            "usage": RESPONSES_USAGE,
            "custom_outputs": {"model": "claude-3-haiku-20240307"},
        },
        used(36, 87, cache_read_input_tokens=12),
        "claude-3-haiku-20240307",
        "anthropic",
    ),
    Exchanged(
        "mlflow-responses-agent-stream",
        {"input": [{"role": "user", "content": SAID}]},
        [
            {"type": "response.output_text.delta", "item_id": "1", "delta": SAID},
            {"type": "response.output_item.done", "item": ITEM},
            {"type": "response.completed", "response": {"output": [ITEM], "usage": RESPONSES_USAGE}},
        ],
        used(36, 87, cache_read_input_tokens=12),
        None,
        None,
        kind=SSE,
    ),
    Exchanged(
        "mlflow-chat-agent",
        ASKED,
        {
            "messages": [{"role": "assistant", "content": SAID, "id": "1"}],
            "finish_reason": "stop",
            "usage": AGENT_USAGE,
        },
        used(7, 3),
        None,
        None,
    ),
    Exchanged(
        "mlflow-chat-agent-stream",
        ASKED,
        [
            {"delta": {"role": "assistant", "content": SAID, "id": "1"}},
            {"delta": {"role": "assistant", "content": "", "id": "1"}, "finish_reason": "stop", "usage": AGENT_USAGE},
        ],
        used(7, 3),
        None,
        None,
        kind=SSE,
    ),
    Exchanged(
        "databricks",
        {**ASKED, "model": "databricks-claude-sonnet-4-5"},
        {
            "id": "msg_bdrk_1",
            "object": "chat.completion",
            "model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 14, "completion_tokens": 30, "total_tokens": 44},
        },
        used(14, 30),
        "databricks-claude-sonnet-4-5",
        "databricks",
    ),
    Exchanged(
        "databricks-endpoint",
        ASKED,
        {
            "object": "chat.completion",
            "model": "meta-llama-3.3-70b-instruct-121024",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 14, "completion_tokens": 30, "total_tokens": 44},
        },
        used(14, 30),
        "databricks-meta-llama-3-3-70b-instruct",
        "databricks",
        path="/serving-endpoints/databricks-meta-llama-3-3-70b-instruct/invocations",
    ),
    Exchanged(
        "cohere",
        {"model": "command-r-08-2024", "message": SAID, "chat_history": []},
        {
            "text": SAID,
            "generation_id": "7b2d7a3e",
            "finish_reason": "COMPLETE",
            "meta": {
                "api_version": {"version": "1"},
                "billed_units": {"input_tokens": 5, "output_tokens": 3},
                "tokens": {"input_tokens": 71, "output_tokens": 3},
            },
        },
        used(71, 3),
        "command-r-08-2024",
        "cohere",
    ),
    Exchanged(
        "cohere-2",
        {**ASKED, "model": "command-a-03-2025"},
        {
            "id": "c14c80c3",
            "message": {"role": "assistant", "content": [{"type": "text", "text": SAID}]},
            "finish_reason": "COMPLETE",
            "usage": {"billed_units": {"input_tokens": 5, "output_tokens": 3}, "tokens": {"input_tokens": 71}},
        },
        used(71, 0),
        "command-a-03-2025",
        "cohere",
    ),
    Exchanged(
        "cohere-embed",
        {"model": "embed-v4.0", "texts": [SAID], "input_type": "search_query"},
        {
            "id": "da6e531f",
            "texts": [SAID],
            "embeddings": {"float": [[0.016, -0.008]]},
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 4}},
        },
        used(4, 0),
        "embed-v4.0",
        None,
    ),
    Exchanged(
        "tgi",
        {"inputs": SAID, "parameters": {"details": True, "decoder_input_details": True}},
        {
            "generated_text": SAID,
            "details": {
                "finish_reason": "length",
                "generated_tokens": 4,
                "prefill": [{"id": 1, "text": "<s>", "logprob": None}, {"id": 278, "text": "the", "logprob": -4.8}],
                "tokens": [{"id": 29871, "text": "flow", "logprob": -1.3, "special": False}],
            },
        },
        used(2, 4),
        None,
        None,
    ),
    Exchanged(
        "tgi-list",
        {"inputs": SAID},
        [{"generated_text": SAID, "details": {"generated_tokens": 4, "input_length": 6, "prefill": []}}],
        used(6, 4),
        None,
        None,
    ),
    Exchanged(
        "tgi-stream",
        {"inputs": SAID, "stream": True},
        [
            {"index": 1, "token": {"id": 29871, "text": SAID, "logprob": -1.3, "special": False}, "details": None},
            {
                "index": 2,
                "token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True},
                "generated_text": SAID,
                "details": {"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 6},
            },
        ],
        used(6, 2),
        None,
        None,
        kind=SSE,
    ),
    Exchanged(
        "voyage",
        {"model": "voyage-3.5", "input": [SAID]},
        {
            "object": "list",
            "data": [{"object": "embedding", "embedding": [0.1], "index": 0}],
            "model": "voyage-3.5",
            "usage": {"total_tokens": 10},
        },
        used(10, 0),
        "voyage-3.5",
        "openai",
    ),
    Exchanged(
        "openai-transcription",
        {"model": "gpt-4o-transcribe"},
        {"text": SAID, "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}},
        used(14, 45),
        "gpt-4o-transcribe",
        "openai",
    ),
    Exchanged(
        "dify",
        {"query": SAID, "inputs": {}, "response_mode": "blocking", "user": "abc-123"},
        {
            "event": "message",
            "conversation_id": "45701982",
            "answer": SAID,
            "metadata": {"usage": {"prompt_tokens": 1033, "completion_tokens": 128, "total_tokens": 1161}},
        },
        used(1033, 128),
        None,
        None,
    ),
    Exchanged(
        "ones-own",
        {"question": SAID},
        {"reply": SAID, "model": "azure/gpt-4o", "usage": {"prompt_tokens": 5, "completion_tokens": 7}},
        used(5, 7),
        "azure/gpt-4o",
        "azure",
        "azure.ai.openai",
    ),
)
