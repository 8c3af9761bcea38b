"""Token usage in responses of language models, under MLflow's names."""

from __future__ import annotations

import re
from typing import Any

from mlflow_middleware.capture import strict_json

_NAMES = (
    ("prompt_tokens", "completion_tokens", "total_tokens"),
    ("input_tokens", "output_tokens", "total_tokens"),
    ("promptTokenCount", "candidatesTokenCount", "totalTokenCount"),
    ("prompt_token_count", "candidates_token_count", "total_token_count"),
    ("prompt_token_count", "generation_token_count", ""),
    ("inputTokens", "outputTokens", "totalTokens"),
    ("promptTokens", "completionTokens", "totalTokens"),
    ("inputTokenCount", "outputTokenCount", ""),
    ("inputTextTokenCount", "totalOutputTextTokenCount", ""),
    ("prompt_eval_count", "eval_count", ""),
)
"""Keys of input, output and total, in this order: OpenAI, OpenAI and Anthropic, Gemini (two), Llama on Bedrock, Vercel
and Bedrock, Vercel, Bedrock's metrics, Titan, Ollama."""

_READ = ("cachedContentTokenCount", "cached_content_token_count", "cachedInputTokens", "prompt_cache_hit_tokens")
_READ_DETAILS = ("prompt_tokens_details", "input_tokens_details", "inputTokenDetails")
_OF_DETAILS = ("cached_tokens", "cacheReadTokens")
_READ_APART = ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
_WRITTEN_APART = (
    *("cache_creation_input_tokens", "cacheCreationInputTokens"),
    *("cacheWriteInputTokens", "cacheWriteInputTokenCount"),
)
"""Keys of cached tokens for Anthropic and Bedrock, which do not include them in the input."""

_APART = ("input_tokens", "inputTokens", "inputTokenCount")
_THOUGHTS = ("thoughtsTokenCount", "thoughts_token_count")
_TOOL_USE = ("toolUsePromptTokenCount", "tool_use_prompt_token_count")
"""Keys for Gemini, which includes these only in the total; thoughts are billed as output, tool use as input."""

_METRICS = "amazon-bedrock-invocationMetrics"
_HOLDERS = ("usage", "usageMetadata", "usage_metadata", "totalUsage", "meta", _METRICS)
_AROUND = (
    *("response", "message", "messageMetadata", "metadata", "result", "value", "event", "custom_outputs"),
    *("predictions", "data", "delta", "x_groq"),
)
_FLAT = frozenset(("eval_count", "prompt_eval_count", "inputTextTokenCount", "generation_token_count", "details"))
"""Keys of counts at the top level of a response; TGI has them in its details."""

_ALL = frozenset((*_HOLDERS, *_AROUND, *_FLAT))

COUNTS = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_input_tokens": "gen_ai.usage.cache_creation.input_tokens",
}
"""MLflow's name -> OpenTelemetry's: https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/."""

_MAX_COUNT = 2**53
"""Largest plausible count: the largest integer that is exact in JSON and in sums on the server."""

_OBJECT = re.compile(rf'"(?:usage|usageMetadata|usage_metadata|tokens|{_METRICS})"\s*:\s*(?=\{{)')
_MAX_LOOKS = 20
"""Maximum number of places that are examined, the last ones."""

_MAX_LENGTH = 4096
"""Maximum number of characters of an object with token usage."""


def usage_of(value: Any) -> dict[str, int] | None:
    """Return the token usage that a response, or a chunk of one, reports; None if it reports none."""
    if not isinstance(value, dict) or _ALL.isdisjoint(value):
        return None
    for each in (value, *_inside(value)):
        for holder in (*[each.get(key) for key in _HOLDERS], None if _FLAT.isdisjoint(each) else _flat(each)):
            if isinstance(holder, dict) and (found := _tokens(holder) or _unusual(holder)):
                return found
    return None


def _unusual(usage: dict[str, Any]) -> dict[str, int] | None:
    """Return Cohere's counts, which are nested one level deeper, or Jina's and Voyage's, which have only a total."""
    nested = _tokens(usage.get("tokens")) or _tokens(usage.get("billed_units"))
    return nested or (_tokens({"prompt_tokens": usage["total_tokens"]}) if usage.keys() == {"total_tokens"} else None)


def _inside(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nested objects that may report token usage; LangGraph sends them in lists of two."""
    held = [value.get(key) for key in _AROUND]
    every = [each for item in held for each in (item[:2] if isinstance(item, list) else [item])]
    return [each for each in every if isinstance(each, dict)]


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the response itself; for Titan, with the sum of the output tokens; for TGI, the counts in its details."""
    details, results = answer.get("details"), answer.get("results")
    if isinstance(details, dict) and "generated_tokens" in details:
        prefill = details.get("prefill")
        asked = len(prefill) if isinstance(prefill, list) and prefill else details.get("input_length")
        return {"prompt_tokens": asked, "completion_tokens": details["generated_tokens"]}
    if "inputTextTokenCount" not in answer or not isinstance(results, list):
        return answer
    counts = [_count(each.get("tokenCount")) or 0 for each in results if isinstance(each, dict)]
    return {**answer, "totalOutputTextTokenCount": sum(counts)}


def last_usage_of(values: list[Any]) -> dict[str, int] | None:
    """Return the token usage of the last value that reports any."""
    return next((found for value in reversed(values) if (found := usage_of(value))), None)


def usage_in(text: str) -> dict[str, int] | None:
    """Return the token usage that the tail of a JSON text reports; None if it reports none.

    It is an object under a key such as ``"usage"`` with integers under the expected names.
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
    for names in (*[each for each in _NAMES if each[1] in usage], *_NAMES):
        read, written, total = (_count(usage.get(name)) for name in names)
        if read is None:
            continue
        if written is None and (names[1] not in usage or names[0] not in ("prompt_tokens", "input_tokens")):
            written = 0  # embeddings; Gemini, Titan and Ollama before any output
        if written is not None:
            return _counted(usage, names[0], read, written, total)
    return None


def _counted(usage: dict[str, Any], name: str, read: int, written: int, total: int | None) -> dict[str, int]:
    """Return the token usage as MLflow and OpenTelemetry define it, including tokens that a provider counts apart."""
    cached = _cached(usage)
    apart = sum(_first(usage, names) for names in (_READ_APART, _WRITTEN_APART))
    if name in _APART and apart and total != read + written:
        read, total = read + apart, None
    read, written = read + _first(usage, _TOOL_USE), written + _first(usage, _THOUGHTS)
    return {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written if total is None else total,
        **cached,
    }


def _cached(usage: dict[str, Any]) -> dict[str, int]:
    """Return the tokens read from, and written to, a provider's cache."""
    details = [usage[key] for key in _READ_DETAILS if isinstance(usage.get(key), dict)]
    read = _first(usage, (*_READ_APART, *_READ)) or next(
        filter(None, (_first(each, _OF_DETAILS) for each in details)), 0
    )
    by_age = usage.get("cache_creation")
    found = {
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": _first(usage, _WRITTEN_APART),
        "cache_creation_input_tokens_above_1hr": _first(by_age, ("ephemeral_1h_input_tokens",))
        if isinstance(by_age, dict)
        else 0,
    }
    return {name: count for name, count in found.items() if count}


def _first(usage: dict[str, Any], names: tuple[str, ...]) -> int:
    """Return the first of these counts that is not zero; zero if there is none."""
    return next(filter(None, (_count(usage.get(name)) for name in names)), 0)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None
