"""Streams of language models: the pieces of one answer, assembled.

The formats: https://platform.openai.com/docs/api-reference/chat-streaming,
https://platform.openai.com/docs/api-reference/responses-streaming,
https://docs.anthropic.com/en/docs/build-with-claude/streaming,
https://mlflow.org/docs/latest/genai/serving/responses-agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlflow_middleware.capture import strict_json

_MAX_INDEX = 1000
"""A choice, tool call or content block with a higher index is considered a mistake."""

_USAGE_KEYS = (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"))


def assembled(pieces: list[Any]) -> dict[str, Any] | None:
    """Assemble a language model's answer from its pieces; None if they are something else."""
    assemble = next((assemble for piece in pieces[:10] if (assemble := _assembler(piece))), None)
    try:
        return assemble([_mapping(piece) for piece in pieces]) if assemble else None
    except (TypeError, ValueError, RecursionError):  # hostile: shown as it arrived
        return None


def usage_of(value: Any) -> dict[str, int] | None:
    """Return the tokens that an answer reports, named as in MLflow: input, output and total; None if it has none."""
    usage = value.get("usage") if isinstance(value, dict) else None
    if not isinstance(usage, dict):
        return None
    for names in _USAGE_KEYS:
        read, written = (usage.get(name) for name in names)
        if type(read) is int and type(written) is int:
            total = usage.get("total_tokens")
            total = total if type(total) is int else read + written
            return {"input_tokens": read, "output_tokens": written, "total_tokens": total}
    return None


def _assembler(piece: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]] | None:
    if not isinstance(piece, dict):
        return None
    kind, choices = piece.get("type"), piece.get("choices")
    if piece.get("object") == "chat.completion.chunk":
        return _chat
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and "delta" in choices[0]:
        return _chat
    if isinstance(kind, str) and kind.startswith("response."):
        return _responses
    if kind in ("message_start", "content_block_start", "content_block_delta"):
        return _anthropic
    return None


class _Text:
    """Collect the parts of a text and join them once; joining at each part takes quadratic time."""

    def __init__(self, start: Any = None) -> None:
        self.parts: list[str] = []
        self.add(start)

    def add(self, part: Any) -> None:
        if part is not None:
            self.parts.append(_string(part))


def _joined(value: Any) -> Any:
    """Return the value with each collected text in it joined."""
    if isinstance(value, _Text):
        return "".join(value.parts)
    if isinstance(value, dict):
        return {key: _joined(item) for key, item in value.items()}
    return [_joined(item) for item in value] if isinstance(value, list) else value


def _grow(target: dict[str, Any], key: str, part: Any) -> None:
    """Append to the text under a key."""
    if part is None:
        target.setdefault(key, None)
        return
    text = target.get(key)
    if not isinstance(text, _Text):
        text = target[key] = _Text(text)
    text.add(part)


def _chat(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Assemble the chunks of an OpenAI chat completion."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in map(_mapping, _sequence(chunk.get("choices"))):
            index = _index(choice.get("index", 0))
            known = choices.setdefault(index, {"index": index, "message": {"role": "assistant"}, "finish_reason": None})
            _add_delta(known["message"], _mapping(choice.get("delta") or {}))
            known["finish_reason"] = choice.get("finish_reason") or known["finish_reason"]
        answer.update({key: value for key, value in chunk.items() if key != "choices" and value is not None})
    for choice in choices.values():
        _list_tool_calls(choice["message"])
    listed = [choices[index] for index in sorted(choices)]
    return {**answer, "object": "chat.completion", "choices": _joined(listed)}


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if key in ("content", "refusal", "reasoning_content", "reasoning"):
            _grow(message, key, value)
        elif key == "tool_calls":
            calls = message.setdefault(key, {})
            for call in map(_mapping, _sequence(value)):
                _add_call(calls.setdefault(_index(call.get("index", 0)), {}), call)
        elif key == "function_call":
            _add_function(message.setdefault(key, {}), _mapping(value or {}))
        elif value is not None:
            message[key] = value


def _add_call(known: dict[str, Any], call: dict[str, Any]) -> None:
    known.update({key: value for key, value in call.items() if key not in ("index", "function") and value is not None})
    if "function" in call:
        _add_function(known.setdefault("function", {}), _mapping(call["function"] or {}))


def _add_function(known: dict[str, Any], function: dict[str, Any]) -> None:
    for key, value in function.items():
        if key == "arguments":
            _grow(known, key, value)
        elif value is not None:
            known[key] = value


def _list_tool_calls(message: dict[str, Any]) -> None:
    if "tool_calls" in message:
        calls = message["tool_calls"]
        message["tool_calls"] = [calls[index] for index in sorted(calls)]


def _responses(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Assemble the events of OpenAI's Responses API, or of an MLflow ResponsesAgent."""
    items: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for piece in pieces:
        kind = piece.get("type")
        if kind in ("response.completed", "response.incomplete", "response.failed") and "response" in piece:
            return _mapping(piece["response"])
        if kind in ("response.output_item.added", "response.output_item.done"):
            item = _mapping(piece.get("item", {}))
            items[_item_key(item.get("id"), piece, f"#{len(items)}")] = dict(item)
        elif kind == "response.output_text.delta":
            _grow(items.setdefault(_item_key(piece.get("item_id"), piece), {}), "text", piece.get("delta"))
        elif kind == "response.function_call_arguments.delta":
            _grow(items.setdefault(_item_key(piece.get("item_id"), piece), {}), "arguments", piece.get("delta"))
        elif kind is None:
            rest.update(piece)
        elif kind == "error":
            rest["error"] = piece
    return {**rest, "output": [_output_item(item) for item in items.values()]}


def _item_key(item_id: Any, piece: dict[str, Any], otherwise: str = "") -> str:
    """Return what identifies an item; the result of a tool may have no id."""
    key = item_id if item_id is not None else piece.get("output_index")
    return str(key) if isinstance(key, (str, int)) else otherwise


def _output_item(item: dict[str, Any]) -> Any:
    """Return an item as it was sent whole, or assembled from its pieces."""
    text = item.get("text")
    if isinstance(text, _Text):
        message = {"type": "message", "role": "assistant", **item}
        message.pop("text")
        return {**message, "content": [{"type": "output_text", "text": _joined(text)}]}
    return _joined(item if "type" in item else {"type": "function_call", **item})


def _anthropic(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Assemble the events of an Anthropic message."""
    message: dict[str, Any] = {"role": "assistant"}
    blocks: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    for piece in pieces:
        kind = piece.get("type")
        if kind == "message_start":
            message.update(_mapping(piece.get("message", {})))
            usage.update(_mapping(message.get("usage") or {}))
        elif kind == "content_block_start":
            blocks[_index(piece.get("index"))] = dict(_mapping(piece.get("content_block")))
        elif kind == "content_block_delta":
            _add_block(blocks.setdefault(_index(piece.get("index")), {}), _mapping(piece.get("delta")))
        elif kind == "message_delta":
            message.update(_mapping(piece.get("delta") or {}))
            usage.update(_mapping(piece.get("usage") or {}))
        elif kind == "error":
            message["error"] = piece.get("error")
    content = [_block(blocks[index]) for index in sorted(blocks)]
    return {**message, "content": content, **({"usage": usage} if usage else {})}


def _add_block(block: dict[str, Any], delta: dict[str, Any]) -> None:
    kind = delta.get("type")
    if kind == "text_delta":
        block.setdefault("type", "text")
        _grow(block, "text", delta.get("text"))
    elif kind == "input_json_delta":
        block.setdefault("type", "tool_use")
        _grow(block, "partial_json", delta.get("partial_json"))
    elif kind == "thinking_delta":
        block.setdefault("type", "thinking")
        _grow(block, "thinking", delta.get("thinking"))
    else:
        block.update({key: value for key, value in delta.items() if key != "type"})


def _block(block: dict[str, Any]) -> Any:
    """Return a content block, with a tool's input parsed; input that is cut stays as it arrived."""
    whole: dict[str, Any] = _joined(block)
    if "partial_json" in whole:
        partial = whole.pop("partial_json")
        try:
            whole["input"] = strict_json.parsed(partial) if partial else whole.get("input", {})
        except ValueError:
            whole["input"] = partial
    return whole


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _sequence(value: Any) -> Iterable[Any]:
    if not isinstance(value, list):
        if value is None:
            return []
        raise TypeError
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _index(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MAX_INDEX:
        raise ValueError
    return value
