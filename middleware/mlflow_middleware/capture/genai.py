"""Recognition of a model's or an agent's traffic by the shape of its bodies.

Keys that other APIs use, too, are not enough, such as ``messages`` without roles.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

Shape: TypeAlias = Any
"""The shape of a value. A dict: an object with at least these keys. A list: a list with such an item. A set: one of
these texts. A pattern: a text that begins like this. A type: a value of that type. A tuple: any of these."""

_MAX_LOOKS = 16
"""Maximum number of items of a list that are examined, the first ones; a quarter in a list inside, and so on."""

_ROLES = frozenset(("user", "assistant", "system", "developer", "tool", "model", "human", "ai", "function"))
_PART: Shape = tuple({key: object} for key in ("text", "inlineData", "inline_data", "functionCall"))
_WITH_ROLE: Shape = tuple({"role": _ROLES, key: object} for key in ("content", "parts", "text", "tool_calls"))
_MESSAGE: Shape = (
    *_WITH_ROLE,
    {"type": frozenset(("human", "ai")), "content": object},  # LangChain
    {"type": frozenset(("function_call", "function_call_output", "reasoning"))},  # items of OpenAI's Responses
    {"parts": [_PART]},  # Gemini, A2A, Vercel
)
_MESSAGES: Shape = [_MESSAGE]
_AUDIO: Shape = (
    {"content_type": re.compile(r"(?:audio|video)/")},
    {"filename": re.compile(r".{,255}\.(?:flac|m4a|mp3|mp4|mpeg|mpga|oga|ogg|wav|webm)$", re.IGNORECASE)},
)
_SAMPLING: Shape = tuple(
    {key: object}
    for key in ("max_new_tokens", "temperature", "top_k", "top_p", "do_sample", "return_full_text", "details")
)
_RPC = frozenset(
    (
        *("message/send", "message/stream", "tasks/get", "tasks/cancel", "tasks/resubscribe"),  # A2A
        *("tasks/send", "tasks/sendSubscribe", "SendMessage", "SendStreamingMessage", "GetTask"),  # other versions
        *("tools/call", "prompts/get", "completion/complete", "sampling/createMessage"),  # MCP
    )
)
_RPC_RESULT: Shape = (
    {"kind": frozenset(("task", "message", "status-update", "artifact-update"))},
    {"content": [{"type": frozenset(("text", "image", "audio", "resource", "resource_link"))}]},
)
_NUMBER: Shape = (float, int)
_VECTOR: Shape = ([_NUMBER], str)

_REQUESTS: Shape = (
    *({key: _MESSAGES} for key in ("messages", "input", "contents")),  # OpenAI, Anthropic, Ollama, AG-UI; Gemini
    *({key: _MESSAGES} for key in ("items", "additional_messages")),  # OpenAI's Conversations; Coze
    *({key: _MESSAGE} for key in ("message", "content")),  # Vercel, A2A; Gemini's embeddings
    *({key: _MESSAGE} for key in ("newMessage", "new_message")),  # Google's ADK
    *({key: {"messages": _MESSAGES}} for key in ("input", "inputs", "request")),  # LangServe; MLflow's model server
    {"request": {"input": _MESSAGES}},
    {"requests": [({"content": _MESSAGE}, {"params": {"messages": _MESSAGES}})]},  # Gemini's embeddings; Anthropic
    {"input": {"prompt": str}},  # Replicate, RunPod, DashScope
    {"model": str, "input": (str, list)},  # OpenAI's Responses, embeddings, speech, moderations
    {"model": str, "prompt": (str, list)},
    {"model": str, "file": _AUDIO},  # OpenAI's transcriptions and translations
    *({key: str} for key in ("prompt", "inputText", "anthropic_version")),  # completions, images; Bedrock
    {"text_prompts": [{"text": str}]},  # Stability
    {"textToImageParams": {"text": str}},  # Titan
    {"model": str, "query": str, "documents": list},  # rerank
    *({key: str, "texts": [str]} for key in ("model", "query")),  # Cohere's embeddings; TEI's rerank
    {"model_id": str, "input": str},  # watsonx
    {"text_input": str},  # Triton
    {"chat_history": list},  # Cohere
    {"inputs": str, "parameters": _SAMPLING},  # TGI
    {"instances": [({"prompt": str}, {"content": str, "task_type": str})]},  # Vertex
    {"instances": [{"messages": [{"content": object}]}]},
    {"jsonrpc": str, "method": _RPC},
    {"threadId": str, "runId": str, "messages": list},  # AG-UI
    {"query": str, "response_mode": str},  # Dify
    {"inputs": dict, "response_mode": frozenset(("blocking", "streaming"))},
    {"input": object, "config": dict, "kwargs": dict},  # LangServe
    {"assistant_id": str, "input": object},  # LangGraph
    {"assistant_id": re.compile(r"asst_")},  # OpenAI's Assistants
    {"session": {"type": frozenset(("realtime", "transcription"))}},  # OpenAI's Realtime
    {"model": str, "modalities": [str]},
    {"role": _ROLES, "content": (str, [dict])},
)

_ANSWERS: Shape = (
    *({key: _MESSAGES} for key in ("messages", "output")),
    *({key: _MESSAGE} for key in ("message", "content")),  # Ollama, Cohere; Google's ADK
    {"output": {"message": _MESSAGE}},  # Bedrock
    _WITH_ROLE,
    {"choices": [({"message": dict}, {"delta": dict}, {"text": str, "finish_reason": object}, {"logprobs": object})]},
    {"candidates": [({"content": dict}, {"finishReason": object}, {"finish_reason": object})]},
    {"data": [({"embedding": _VECTOR}, {"b64_json": str}, {"revised_prompt": str})]},
    {"embedding": _VECTOR, "inputTextTokenCount": int},
    *({"model": str, key: object} for key in ("response", "embeddings", "embedding", "completion")),
    {"embeddings": ([[_NUMBER]], {"float": list})},
    {"results": [({"index": int, "relevance_score": _NUMBER}, {"outputText": str}, {"generated_text": str})]},
    {"results": [{"flagged": bool, "categories": dict}]},  # OpenAI's moderations
    {"outputs": [{"text": str, "stop_reason": object}]},  # Mistral on Bedrock
    {"generation": str, "stop_reason": object},  # Llama on Bedrock
    {"generated_text": object},  # TGI
    {"token": {"text": str, "logprob": object}},
    {"predictions": [({"candidates": list, "safetyAttributes": object}, {"embeddings": {"values": list}})]},  # Vertex
    {"text": str, "generation_id": str},  # Cohere
    {"event_type": frozenset(("stream-start", "text-generation", "stream-end"))},
    {"type": frozenset(("content-delta", "transcript.text.delta", "transcript.text.done"))},
    {"task": frozenset(("transcribe", "translate")), "text": str},
    {"jsonrpc": str, "result": _RPC_RESULT},
    {"answer": str, "conversation_id": str},  # Dify
    {"output": object, "metadata": ({"run_id": str}, {"run_ids": list})},  # LangServe
    {"object": re.compile(r"(?:chat\.completion|text_completion|realtime\.|thread\.)")},
    {"object": frozenset(("thread", "response", "assistant")), "id": re.compile(r"(?:thread|resp|asst)_")},
)

_IN_TEXT = re.compile(
    r'"role"\s*:\s*"(?:user|assistant|system|developer|tool|model)"|"(?:chat\.completion|max_tokens)'
    r'|"method"\s*:\s*"(?:message/s|tools/call)|"(?:generated_text|chat_history)"'
    r'|"prompt"\s*:\s*"|"parts"\s*:\s*\[\s*\{\s*"(?:text|inline)'
)
"""A sign in incomplete JSON."""


def is_model_traffic(inputs: Any, outputs: Any) -> bool:
    """Return whether a request or its response looks like traffic of a model or an agent.

    Args:
        inputs: The request's body, parsed.
        outputs: The response's body, parsed: a model's stream assembled, any other stream as a list of its events.
    """
    return _is_request(inputs) or _is_answer(outputs)


def _is_request(value: Any) -> bool:
    if isinstance(value, list):  # a bare chat, or a batch of requests
        return _fits(value, _MESSAGES) or _fits(value, [_REQUESTS])
    return _is_one(value, _REQUESTS)


def _is_answer(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_one(_data(each), _ANSWERS) for each in value[:_MAX_LOOKS])
    return _is_one(value, _ANSWERS)


def _data(event: Any) -> Any:
    """Return the data of a server-sent event that has a name."""
    return event["data"] if isinstance(event, dict) and event.keys() == {"event", "data"} else event


def _is_one(value: Any, shapes: Shape) -> bool:
    return _IN_TEXT.search(value) is not None if isinstance(value, str) else _fits(value, shapes)


def _fits(value: Any, shape: Shape, looks: int = _MAX_LOOKS) -> bool:
    """Return whether a value has a shape, examining at most `looks` items of a list."""
    if isinstance(shape, dict):
        is_larger = isinstance(value, dict) and shape.keys() <= value.keys()
        return is_larger and all(_fits(value[key], part, looks) for key, part in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and any(_fits(each, shape[0], looks // 4) for each in value[:looks])
    if isinstance(shape, tuple):
        return any(_fits(value, each, looks) for each in shape)
    if isinstance(shape, frozenset):
        return isinstance(value, str) and value in shape
    if isinstance(shape, re.Pattern):
        return isinstance(value, str) and shape.match(value) is not None
    return isinstance(value, shape)
