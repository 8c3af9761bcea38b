"""Previews: the readable text in a request to a language model, and in its response.

The formats: https://platform.openai.com/docs/api-reference/chat, https://platform.openai.com/docs/api-reference/responses,
https://docs.anthropic.com/en/api/messages, https://ai.google.dev/api/generate-content,
https://mlflow.org/docs/latest/genai/serving/responses-agent.
"""

from __future__ import annotations

from typing import Any

_ASKING = frozenset(("messages", "input", "request", "prompt"))
_ANSWERING = frozenset(("choices", "candidates", "output", "messages", "role", "message"))
"""Keys of which a request and an answer have one."""

_TEXT_PARTS = ("text", "input_text", "output_text")


def of_request(value: Any) -> str | None:
    """Return the user's last message; None if the value is not such a request."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or _ASKING.isdisjoint(value):
        return None
    for key in ("messages", "input"):
        content = value.get(key)
        if isinstance(content, str):
            return content or None
        if text := _last_message(content, "user"):
            return text
    if "request" in value:  # as in a call of a ResponsesAgent
        return of_request(value["request"]) if isinstance(value["request"], dict) else None
    prompt = value.get("prompt")
    return prompt if isinstance(prompt, str) and prompt else None


def of_answer(value: Any) -> str | None:
    """Return the assistant's message; None if the value is not such a response."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or _ANSWERING.isdisjoint(value):
        return None
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        text = choices[0].get("text")
        return _text_of(choices[0].get("message")) or (text if isinstance(text, str) and text else None)
    candidates = value.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], dict):
        return _text_of(candidates[0].get("content"))
    output = value.get("output")
    if isinstance(output, dict) and (text := _text_of(output.get("message"))):  # Bedrock
        return text
    if text := _last_message(output, "assistant") or _last_message(value.get("messages"), "assistant"):
        return text
    return _text_of(value) if value.get("role") == "assistant" else _text_of(value.get("message"))


def _last_message(messages: Any, role: str) -> str | None:
    """Return the text of the last message with that role, or of the last message if none has it."""
    if not isinstance(messages, list):
        return None
    found = [each for each in messages if isinstance(each, dict) and "role" in each and "content" in each]
    own = [each for each in found if each["role"] == role]
    return _text_of((own or found)[-1]) if found else None


def _text_of(message: Any) -> str | None:
    content = message.get("content", message.get("parts")) if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = (part if isinstance(part, str) else _part(part) for part in content)
        return "\n".join(part for part in parts if part) or None
    return content if isinstance(content, str) and content else None


def _part(part: Any) -> str | None:
    is_text = isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS and not part.get("thought")
    text = part.get("text") if is_text else None
    return text if isinstance(text, str) else None
