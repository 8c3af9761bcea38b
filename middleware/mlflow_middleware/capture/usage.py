"""The tokens that an answer reports, named as MLflow names them."""

from __future__ import annotations

import re
from typing import Any

from mlflow_middleware.capture import strict_json

_NAMES = (
    ("prompt_tokens", "completion_tokens", "total_tokens"),
    ("input_tokens", "output_tokens", "total_tokens"),
    ("promptTokenCount", "candidatesTokenCount", "totalTokenCount"),
    ("prompt_token_count", "candidates_token_count", "total_token_count"),
    ("inputTokens", "outputTokens", "totalTokens"),
    ("promptTokens", "completionTokens", "totalTokens"),
    ("prompt_eval_count", "eval_count", ""),
)
"""Input, output and total: of OpenAI, of OpenAI and Anthropic, Gemini (two), Vercel and Bedrock, Vercel, Ollama."""

_READ = ("cache_read_input_tokens", "cachedContentTokenCount", "cached_content_token_count", "cachedInputTokens")
_READ_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_WRITTEN = ("cache_creation_input_tokens", "cacheCreationInputTokens")
_HOLDERS = ("usage", "usageMetadata", "usage_metadata", "totalUsage", "meta")
_AROUND = (
    *("response", "message", "messageMetadata", "metadata", "result", "value", "event", "custom_outputs"),
    *("data", "delta", "x_groq"),
)
_ALL = frozenset((*_HOLDERS, *_AROUND, "eval_count"))

_MAX_COUNT = 2**53
"""The largest number of tokens: servers add them up in a column of 64 bits, and fail where the sum does not fit."""

_OBJECT = re.compile(r'"(?:usage|usageMetadata|usage_metadata|tokens)"\s*:\s*(?=\{)')
_MAX_LOOKS = 20
"""Places that are looked at, the last ones."""

_MAX_LENGTH = 4096
"""Characters of the largest object that is taken for one that reports tokens."""


def usage_of(value: Any) -> dict[str, int] | None:
    """Return the tokens that an answer, or an event of one, reports; None if it has none."""
    if not isinstance(value, dict) or _ALL.isdisjoint(value):
        return None
    for each in (value, *_inside(value)):
        for holder in (*[each.get(key) for key in _HOLDERS], each if "eval_count" in each else None):
            if isinstance(holder, dict) and (found := _tokens(holder) or _tokens(holder.get("tokens"))):
                return found
    return None


def _inside(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects in a value that may report tokens; LangGraph sends them in lists of two."""
    held = [value.get(key) for key in _AROUND]
    every = [each for item in held for each in (item[:2] if isinstance(item, list) else [item])]
    return [each for each in every if isinstance(each, dict)]


def last_usage_of(values: list[Any]) -> dict[str, int] | None:
    """Return the tokens that the last of several values reports that has any."""
    return next((found for value in reversed(values) if (found := usage_of(value))), None)


def usage_in(text: str) -> dict[str, int] | None:
    """Return the tokens that the end of JSON reports, which may have begun before it; None if it has none.

    An object under ``"usage"`` that has whole numbers under the names that are expected.
    """
    for match in reversed(list(_OBJECT.finditer(text))[-_MAX_LOOKS:]):
        try:
            found, _ = strict_json.decoder.raw_decode(text[match.end() : match.end() + _MAX_LENGTH])
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and (tokens := _tokens(found)):
            return tokens
    return None


def _tokens(usage: Any) -> dict[str, int] | None:
    if not isinstance(usage, dict):
        return None
    for names in _NAMES:
        read, written, total = (_count(usage.get(name)) for name in names)
        if read is None:
            continue
        if written is None and names[0].startswith("prompt") and names[0] != "prompt_tokens":
            written = 0  # Gemini's, and Ollama's, while they have said nothing
        if written is not None:
            total = read + written if total is None else total
            return {"input_tokens": read, "output_tokens": written, "total_tokens": total, **_cached(usage)}
    return None


def _cached(usage: dict[str, Any]) -> dict[str, int]:
    """The tokens that a provider had in its cache, or has put there."""
    details = [usage.get(key) for key in _READ_DETAILS]
    read = [usage.get(key) for key in _READ] + [each.get("cached_tokens") for each in details if isinstance(each, dict)]
    written = [usage.get(key) for key in _WRITTEN]
    found = {"cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    counts = {name: next(filter(None, map(_count, values)), 0) for name, values in found.items()}
    return {name: count for name, count in counts.items() if count}


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None
