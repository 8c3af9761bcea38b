"""Model and provider of a call, recognized from the request and its response.

Only names of models and providers are stored; a value that does not look like one is dropped.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mlflow_middleware.capture.usage import COUNTS

_NAME = re.compile(r"[A-Za-z0-9][\w.:@+\-\[\]/]{0,199}", re.ASCII)
"""A model's name or id. It has no spaces, so that a sentence is never mistaken for one."""

_IN_PATH = re.compile(
    r"/models/([^/:]+):(?:generate|streamGenerate|embed|batchEmbed|count)"  # Gemini
    r"|/model/([^/]+)/(?:invoke|converse)"  # Bedrock
    r"|/deployments/([^/]+)/(?:chat|completions|embeddings|responses)"  # Azure
    r"|/serving-endpoints/([^/]+)/invocations"  # Databricks
)

_IN_TEXT = re.compile(r'"model(?:Version)?"\s*:\s*"([^"\\]{1,200})"')

_LONGEST = 400
"""Maximum number of characters of a name that are examined; resource names are long."""

_MODELS = ("model", "modelVersion", "model_version", "modelId", "model_name")
_AROUND = ("response", "message", "metadata", "custom_outputs")
_NAMING = frozenset((*_MODELS, *_AROUND))

_ASKED = frozenset(("messages", "input", "prompt", "contents", "inputText"))
_SIGNS = frozenset(
    ("object", "model", "created", "candidates", "output", "stop_reason", "generation", "embeddings", "done")
)
"""Keys of which a model's response has at least one."""

_BEDROCK = re.compile(
    r"(?:(?:us|us-gov|eu|apac|jp|au|ca|global)\.)?"
    r"(?:amazon|anthropic|meta|mistral|cohere|ai21|deepseek|openai|qwen|stability|writer|twelvelabs|google|nvidia)\.[a-z]"
)
_FAMILIES = (
    (re.compile(r"gpt-(?!oss)|chatgpt|o[134](?:$|-)|text-embedding-(?:3|ada)|davinci|babbage"), "openai"),
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gemini|text-embedding-00"), "gemini"),
    (re.compile(r"mistral-(?:large|medium|small|embed)|codestral|ministral|magistral|pixtral"), "mistral"),
    (re.compile(r"command-|embed-(?:english|multilingual)"), "cohere"),
    (re.compile(r"deepseek-(?:chat|reasoner)$"), "deepseek"),
    (re.compile(r"grok-"), "xai"),
    (re.compile(r"sonar"), "perplexity"),
    (re.compile(r"databricks-"), "databricks"),
)
"""Models of a single provider, whoever relays their responses; not open models, which anybody may serve."""

_PREFIXES = {
    **{
        name: name
        for name in (
            *("openai", "anthropic", "gemini", "vertex_ai", "bedrock", "azure", "ollama", "mistral", "cohere", "groq"),
            *("deepseek", "xai", "perplexity", "databricks", "openrouter", "together_ai", "fireworks_ai", "azure_ai"),
        )
    },
    "google": "gemini",
    "mistralai": "mistral",
    "x-ai": "xai",
}
"""Provider in ``provider/model``, as LiteLLM and OpenRouter write it -> MLflow's name of the provider."""

_FOR_OPENTELEMETRY = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""MLflow's name -> OpenTelemetry's:
https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/#gen-ai-provider-name."""

_EXCLUSIVE = ("bedrock", "gemini", "ollama")
"""Providers whose protocols no one else uses."""


Names = tuple[tuple[str, str], ...]
"""Keys and values of the attributes that name the model and its provider."""


def names_of(sent: Any, answer: Any, path: str, usage: Mapping[str, int] | None, model: str | None) -> Names:
    """Return the attributes that name the model; none if no model seems to have answered.

    Args:
        sent: The request's body.
        answer: The response's body: one value, or the chunks of a stream.
        path: The request's path.
        usage: The token usage that the response reports, if any.
        model: The model that the end of the response names, if the rest was not kept.
    """
    is_object = type(sent) is dict
    asked = sent.get("model", sent.get("modelId")) if is_object else None
    shape = _shape_of(answer)
    if not (usage or shape or (asked and is_object and not _ASKED.isdisjoint(sent))):
        return ()
    answered = _answered_by(answer) or model or ""
    if type(asked) is not str or len(asked) > _LONGEST:
        asked = _in_path(path)
    return _names(asked, answered[:_LONGEST], shape, _marked(answer) if type(answer) is dict else "")


@functools.lru_cache(maxsize=512)
def _names(asked: str, answered: str, shape: str, marked: str) -> Names:
    request_model, response_model = name_of(asked), name_of(answered)
    used = response_model or request_model
    if request_model and request_model.startswith("databricks-"):
        used, marked = request_model, "databricks"  # priced by this name; the response has that of the model's maker
    provider = _provider(shape, used or "", marked)
    is_known = used or shape in _EXCLUSIVE
    found = {
        "gen_ai.request.model": request_model,
        "gen_ai.response.model": response_model,
        "gen_ai.provider.name": _FOR_OPENTELEMETRY.get(provider, provider) if is_known else None,
        "mlflow.llm.model": used,
        "mlflow.llm.provider": provider if used else None,
    }
    return tuple((key, value) for key, value in found.items() if value)


def may_be_call(sent: Any, answer: Any) -> bool:
    """Return whether a model may have answered: a quick check for responses without token usage."""
    if type(answer) is dict:
        return not _SIGNS.isdisjoint(answer) or (type(sent) is dict and "model" in sent)
    return type(answer) is list or (type(sent) is dict and "model" in sent)


def model_in(text: str) -> str | None:
    """Return the model that the tail of a JSON text names; None if it names none."""
    found = None
    for match in _IN_TEXT.finditer(text):
        found = match[1]
    return name_of(found)


def counts_of(usage: Mapping[str, int]) -> dict[str, int]:
    """Return the token usage under OpenTelemetry's names."""
    return {name: usage[key] for key, name in COUNTS.items() if key in usage}


def _in_path(path: str) -> str:
    """Return the model in the URL path of some providers; empty for none."""
    match = _IN_PATH.search(path)
    return next(filter(None, match.groups())) if match else ""


def _answered_by(answer: Any) -> str | None:
    """Return the model that a response names, or the last chunk of a stream that names one."""
    if type(answer) is list:
        return next(filter(None, map(_answered_by_one, reversed(answer))), None)
    return _answered_by_one(answer)


def _answered_by_one(answer: Any) -> str | None:
    if type(answer) is not dict or _NAMING.isdisjoint(answer):
        return None
    around = (answer.get(key) for key in _AROUND)
    each = (value.get(key) for value in (answer, *around) if isinstance(value, dict) for key in _MODELS)
    return next((value for value in each if isinstance(value, str) and value), None)


def name_of(value: Any) -> str | None:
    """Return the value if it is a model's name, reduced to its last part if it is a resource name."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        return None
    if value.startswith(("arn:", "projects/", "publishers/", "models/")):
        return value.rsplit("/", 1)[-1]
    return value


def _provider(shape: str, model: str, marked: str) -> str:
    """Return the model's provider, as MLflow names it; empty if unknown."""
    if shape in _EXCLUSIVE:
        return shape
    prefix, _, bare = model.rpartition("/")
    if known := marked or _PREFIXES.get(prefix.partition("/")[0], ""):
        return known
    if _BEDROCK.match(model):
        return "bedrock"
    return next((name for pattern, name in _FAMILIES if pattern.match(bare)), shape)


def _marked(answer: dict[str, Any]) -> str:
    """Return the provider that a response reveals by keys or ids of its own; empty for none."""
    if _MARKING.isdisjoint(answer):
        return ""
    if answer.get("system_fingerprint") == "fp_ollama":
        return "ollama"
    if not _MARKS.keys().isdisjoint(answer):
        return next(name for mark, name in _MARKS.items() if mark in answer)
    identifier = answer.get("id")
    return _BY_ID.get(identifier[:9], "") if type(identifier) is str else ""


_MARKS = {"x_groq": "groq", "prompt_filter_results": "azure"}
_BY_ID = {"msg_bdrk_": "bedrock", "msg_vrtx_": "vertex_ai"}
_MARKING = frozenset((*_MARKS, "system_fingerprint", "id"))


def _shape_of(answer: Any) -> str:
    """Return the provider whose protocol a response, or a stream's first and last chunks, follows; empty if unknown."""
    if type(answer) is list:
        return next(filter(None, map(_shape_of_one, answer[:2] + answer[-2:])), "")
    return _shape_of_one(answer)


def _shape_of_one(answer: Any) -> str:
    if type(answer) is not dict:
        return ""
    if type(answer.get("choices")) is list:
        return "" if _OF_CHAT.isdisjoint(answer) else "openai"
    return next((name for name, is_it in _SHAPES if is_it(answer)), "")


_OF_CHAT = frozenset(("object", "model", "usage", "created"))
_OF_GEMINI = frozenset(("usageMetadata", "modelVersion"))
_OF_TITAN = frozenset(("inputTextTokenCount", "amazon-bedrock-invocationMetrics"))

Answer: TypeAlias = dict[str, Any]


def _is_embedding(answer: Answer) -> bool:
    data = answer.get("data") if answer.get("object") == "list" else None
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "embedding" in data[0]


def _is_of_responses(answer: Answer) -> bool:
    return answer.get("object") == "response" and isinstance(answer.get("output"), list)


def _is_of_anthropic(answer: Answer) -> bool:
    return answer.get("role") == "assistant" and "stop_reason" in answer and isinstance(answer.get("content"), list)


def _is_of_gemini(answer: Answer) -> bool:
    return isinstance(answer.get("candidates"), list) and not _OF_GEMINI.isdisjoint(answer)


def _is_of_bedrock(answer: Answer) -> bool:
    output = answer.get("output")
    is_converse = isinstance(output, dict) and "message" in output and "stopReason" in answer
    is_llama = "generation" in answer and "generation_token_count" in answer
    return is_converse or is_llama or not _OF_TITAN.isdisjoint(answer)


def _is_of_ollama(answer: Answer) -> bool:
    is_chat = isinstance(answer.get("done"), bool) and isinstance(answer.get("model"), str)
    return is_chat or (isinstance(answer.get("embeddings"), list) and "prompt_eval_count" in answer)


_SHAPES: tuple[tuple[str, Callable[[Answer], bool]], ...] = (
    ("openai", _is_of_responses),
    ("openai", _is_embedding),
    ("anthropic", _is_of_anthropic),
    ("gemini", _is_of_gemini),
    ("bedrock", _is_of_bedrock),
    ("ollama", _is_of_ollama),
)
"""MLflow's name of a provider, and test of its protocol; chat completions are tested before these."""

KEYS = frozenset((*_NAMING, *_SIGNS, *_MARKING, *_OF_CHAT, *_OF_GEMINI, *_OF_TITAN, *_ASKED, "role", "content"))
"""All keys that this module reads."""
