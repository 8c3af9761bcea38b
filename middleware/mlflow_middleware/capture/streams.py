"""Answers that come in pieces: server-sent events and JSON lines, put together to what a caller would see.

The formats: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream,
https://platform.openai.com/docs/api-reference/chat-streaming,
https://platform.openai.com/docs/api-reference/responses-streaming,
https://docs.anthropic.com/en/docs/build-with-claude/streaming,
https://mlflow.org/docs/latest/genai/serving/responses-agent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from mlflow_middleware.capture import strict_json

MAX_EVENTS = 1000
"""Events, or lines, that are kept where they cannot be put together."""

_MAX_INDEX = 1000
"""A choice, tool call or content block with a higher index is taken for a mistake."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_USAGE_KEYS = (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens"))


class Event(NamedTuple):
    """One event: its name, ``"message"`` unless the stream says otherwise, and its data."""

    name: str
    data: Any


def events(data: bytes, cut: bool) -> list[Event]:
    """Parse server-sent events; their data stays text.

    An event that no blank line ends is dropped when the stream is cut. Else it counts, since many servers
    forget the blank line.
    """
    lines = _LINE_END.split(data.decode("utf-8", "replace").removeprefix("\ufeff"))
    found: list[Event] = []
    name = ""
    texts: list[str] = []
    for line in lines if cut else [*lines, ""]:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if texts:
                found.append(Event(name or "message", "\n".join(texts)))
            name, texts = "", []
        elif field == "data":
            texts.append(value)
        elif field == "event":
            name = value
    return found


def read_events(
    data: bytes, cut: bool, parse: Callable[[str], Any], redact: Callable[[list[Any]], list[Any]] = list
) -> tuple[Any, bool]:
    """What a stream of events says.

    Args:
        data: The stream, or its beginning.
        cut: Whether it goes on.
        parse: Makes a value of one event's data.
        redact: Replaces the secrets in the events, where they stay events.

    Returns:
        One answer, where the stream is one of a language model; otherwise a list of the events; and whether
        some were left out.
    """
    parsed = [Event(name, parse(text)) for name, text in events(data, cut) if text.strip() != "[DONE]"]
    pieces = [event.data for event in parsed if event.data != ""]  # some servers keep connections so
    answer = assembled(pieces)
    if answer is None and pieces and isinstance(pieces[-1], str):
        answer = assembled(pieces[:-1])  # it broke off inside of an event
    if answer is not None:
        return answer, False
    kept = parsed[:MAX_EVENTS]
    values = zip([event.name for event in kept], redact([event.data for event in kept]), strict=True)
    plain = [data if name == "message" else {"event": name, "data": data} for name, data in values]
    return plain, len(parsed) > MAX_EVENTS


def read_lines(text: str, cut: bool, parse: Callable[[str], Any]) -> tuple[list[Any], bool]:
    """The values of JSON lines, and whether some were left out; a last line that is cut is dropped."""
    lines = text.split("\n")
    if cut:
        lines.pop()
    stripped = [line for each in lines if (line := each.strip(" \t\r\x1e"))]
    return [parse(line) for line in stripped[:MAX_EVENTS]], len(stripped) > MAX_EVENTS


def assembled(pieces: list[Any]) -> dict[str, Any] | None:
    """The answer of a language model whose pieces these are; None if they are something else."""
    assemble = next((assemble for piece in pieces[:10] if (assemble := _assembler(piece))), None)
    try:
        return assemble([_mapping(piece) for piece in pieces]) if assemble else None
    except (TypeError, ValueError, RecursionError):  # hostile: what it says is shown as it came
        return None


def usage_of(value: Any) -> dict[str, int] | None:
    """The tokens that an answer says it took, named as in MLflow: input, output and total; None if it does not."""
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
    """Text that grows; joined once, since joining at each piece takes time with the square of them."""

    def __init__(self, start: Any = None) -> None:
        self.parts: list[str] = []
        self.add(start)

    def add(self, part: Any) -> None:
        if part is not None:
            self.parts.append(_string(part))


def _joined(value: Any) -> Any:
    """The value with each growing text in it joined."""
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
    """Put the chunks of an OpenAI chat completion together."""
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
    """Put the events of OpenAI's Responses API, or of an MLflow ResponsesAgent, together."""
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
    """What tells an item from the others; the result of a tool may have no id."""
    key = item_id if item_id is not None else piece.get("output_index")
    return str(key) if isinstance(key, (str, int)) else otherwise


def _output_item(item: dict[str, Any]) -> Any:
    """An item as it was sent whole, or made of its pieces."""
    text = item.get("text")
    if isinstance(text, _Text):
        message = {"type": "message", "role": "assistant", **item}
        message.pop("text")
        return {**message, "content": [{"type": "output_text", "text": _joined(text)}]}
    return _joined(item if "type" in item else {"type": "function_call", **item})


def _anthropic(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the events of an Anthropic message together."""
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
    """A content block; the input of a tool parsed, or as it came where it is cut."""
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
