"""Recognition of a language model's traffic: OpenAI, Anthropic, Gemini, Bedrock, Ollama and MLflow.

Features that other bodies may share, such as ``messages`` without roles, do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_ROLES = frozenset(("user", "assistant", "system", "developer", "tool", "model", "human", "ai", "function"))
_RESULTS = frozenset(("response", "embeddings", "embedding", "completion"))
_MAX_LOOKS = 20
"""Maximum number of items of a list that are examined, the first ones."""

_IN_TEXT = re.compile(r'"role"\s*:\s*"(?:user|assistant|system|developer|tool|model)"|"(?:chat\.completion|max_tokens)')
"""A sign in incomplete JSON."""


def is_model_traffic(inputs: Any, outputs: Any) -> bool:
    """Return whether a request or its response looks like traffic of a language model.

    Args:
        inputs: The request's body, parsed.
        outputs: The response's body, parsed: a model's stream assembled, any other stream as a list of its events.
    """
    return _is_request(inputs) or any(map(_is_answer, outputs[:_MAX_LOOKS] if isinstance(outputs, list) else [outputs]))


def _is_request(value: Any) -> bool:
    if isinstance(value, str):
        return _IN_TEXT.search(value) is not None
    if isinstance(value, list):  # a bare chat, or a batch of requests
        return _are_messages(value) or any(map(_is_request, _dicts(value)))
    if not isinstance(value, dict):
        return False
    asked = value.get("input")
    if any(map(_are_messages, (value.get("messages"), asked, value.get("contents"), [value.get("content")]))):
        return True
    if any(_are_messages([each.get("content")]) for each in _dicts(value.get("requests"))):  # Gemini's embeddings
        return True
    if isinstance(value.get("model"), str) and isinstance(asked or value.get("prompt"), str | list):
        return True
    if any(isinstance(value.get(key), str) for key in ("prompt", "inputText", "anthropic_version")):
        return True
    return isinstance(asked, dict) and _are_messages(asked.get("messages"))  # LangServe


def _is_answer(value: Any) -> bool:
    if isinstance(value, str):
        return _IN_TEXT.search(value) is not None
    if not isinstance(value, dict):
        return False
    output = value.get("output")
    around = output if isinstance(output, dict) else value  # Bedrock
    if any(map(_are_messages, (value.get("messages"), output, [value, around.get("message")]))):
        return True
    if any({"message", "delta", "text", "logprobs"} & each.keys() for each in _dicts(value.get("choices"))):
        return True
    if any({"content", "finishReason", "finish_reason"} & each.keys() for each in _dicts(value.get("candidates"))):
        return True
    if any(isinstance(each.get("embedding"), list) for each in _dicts(value.get("data"))):
        return True
    return isinstance(value.get("model"), str) and not _RESULTS.isdisjoint(value)


def _are_messages(value: Any) -> bool:
    """Return whether these are messages of a chat, or items of OpenAI's Responses."""
    return any(map(_is_message, _dicts(value)))


def _is_message(value: dict[str, Any]) -> bool:
    has_content = not {"content", "parts", "text", "tool_calls"}.isdisjoint(value)
    if isinstance(value.get("role"), str):
        return value["role"] in _ROLES and has_content
    if value.get("type") in ("human", "ai"):  # LangChain
        return has_content
    return value.get("type") in ("function_call", "function_call_output", "reasoning") or _has_parts(value.get("parts"))


def _has_parts(value: Any) -> bool:
    return any(not {"text", "inlineData", "inline_data", "functionCall"}.isdisjoint(each) for each in _dicts(value))


def _dicts(value: Any) -> Iterable[dict[str, Any]]:
    return (each for each in value[:_MAX_LOOKS] if isinstance(each, dict)) if isinstance(value, list) else ()
