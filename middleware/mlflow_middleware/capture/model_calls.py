"""Which model answered, and whose it is, as far as a request and its answer tell.

Names of models and providers are stored, and nothing else of what is read here: what is no such name is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow_middleware.capture.usage import COUNTS

_NAME = re.compile(r"[A-Za-z0-9][\w.:@+\-\[\]/]{0,199}", re.ASCII)
"""A model's name or id: no blanks, so that no sentence is taken for one."""

_IN_PATH = re.compile(
    r"/models/([^/:]+):(?:generate|streamGenerate|embed|batchEmbed|count)"  # Gemini
    r"|/model/([^/]+)/(?:invoke|converse)"  # Bedrock
    r"|/deployments/([^/]+)/(?:chat|completions|embeddings|responses)"  # Azure
    r"|/serving-endpoints/([^/]+)/invocations"  # Databricks
)

_IN_TEXT = re.compile(r'"model(?:Version)?"\s*:\s*"([^"\\]{1,200})"')

_ASKED = frozenset(("messages", "input", "prompt", "contents", "inputText"))
_SIGNS = frozenset(("choices", "object", "candidates", "output", "stop_reason", "generation", "embeddings", "done"))
"""Keys of which a model's answer has one."""

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
"""Models that one provider has, whoever passes their answers on; not those that anybody may serve."""

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
"""``provider/model``, as LiteLLM and OpenRouter write it -> the provider as MLflow names it."""

_FOR_OPENTELEMETRY = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/#gen-ai-provider-name"""

_EXCLUSIVE = ("bedrock", "gemini", "ollama")
"""Whose protocols nobody else speaks."""


def names_of(sent: Any, answer: Any, path: str, usage: Mapping[str, int] | None, model: str | None) -> dict[str, str]:
    """Return the attributes that say which model answered; none if no model did, as far as can be seen.

    Args:
        sent: The request's body.
        answer: The response's body: one value, or the pieces of a stream.
        path: The request's path.
        usage: The tokens that the answer reports, if any.
        model: The model that the answer's end names, where the rest of it was not kept.
    """
    shape = _shape_of(answer)
    is_asked = isinstance(sent, dict) and "model" in sent and not _ASKED.isdisjoint(sent)
    if not (usage or shape or is_asked):
        return {}
    asked = _asked_for(sent, path)
    answered = _answered_by(answer) or name_of(model)
    used = answered or asked
    provider = _provider(shape, used or "", answer)
    found = {
        "gen_ai.request.model": asked,
        "gen_ai.response.model": answered,
        "gen_ai.provider.name": _FOR_OPENTELEMETRY.get(provider, provider) if used or shape in _EXCLUSIVE else None,
        "mlflow.llm.model": used,
        "mlflow.llm.provider": provider if used else None,
    }
    return {key: value for key, value in found.items() if value}


def may_be_call(sent: Any, answer: Any) -> bool:
    """Whether a glance at a request and its answer, of which no tokens are known, tells that a model may have answered."""
    if type(answer) is dict:
        return not _SIGNS.isdisjoint(answer) or (type(sent) is dict and "model" in sent)
    return type(answer) is list or (type(sent) is dict and "model" in sent)


def model_in(text: str) -> str | None:
    """Return the model that the end of JSON names, which may have begun before it; None if it names none."""
    found = None
    for match in _IN_TEXT.finditer(text):
        found = match[1]
    return name_of(found)


def counts_of(usage: Mapping[str, int]) -> dict[str, int]:
    """Return the tokens under OpenTelemetry's names."""
    return {name: usage[key] for key, name in COUNTS.items() if key in usage}


def _asked_for(sent: Any, path: str) -> str | None:
    said = (
        next(filter(None, (name_of(sent.get(key)) for key in ("model", "modelId"))), None)
        if isinstance(sent, dict)
        else None
    )
    match = None if said else _IN_PATH.search(path)
    return said or (name_of(next(filter(None, match.groups()))) if match else None)


def _answered_by(answer: Any) -> str | None:
    """The model that an answer names, or the last piece of a stream that names one."""
    if isinstance(answer, list):
        return next(filter(None, map(_answered_by, reversed(answer))), None)
    if not isinstance(answer, dict):
        return None
    for each in (
        answer,
        answer.get("response"),
        answer.get("message"),
        answer.get("metadata"),
        answer.get("custom_outputs"),
    ):
        if isinstance(each, dict):
            for key in ("model", "modelVersion", "model_version", "modelId", "model_name"):
                if name := name_of(each.get(key)):
                    return name
    return None


def name_of(value: Any) -> str | None:
    """The value if it is a model's name, without what is around it in resource names."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        return None
    if value.startswith(("arn:", "projects/", "publishers/", "models/")):
        return value.rsplit("/", 1)[-1]
    return value


def _provider(shape: str, model: str, answer: Any) -> str:
    """Whose model it is, as MLflow names providers; empty if that is not known."""
    if shape in _EXCLUSIVE:
        return shape
    prefix, _, bare = model.rpartition("/")
    first = prefix.partition("/")[0]
    if (known := _marked(answer)) or (known := _PREFIXES.get(first, "")):
        return known
    if _BEDROCK.match(model):
        return "bedrock"
    return next((name for pattern, name in _FAMILIES if pattern.match(bare)), shape)


def _marked(answer: Any) -> str:
    """The provider that an answer shows by what nobody else writes."""
    if not isinstance(answer, dict):
        return ""
    identifier = answer.get("id")
    if isinstance(identifier, str) and identifier.startswith(("msg_bdrk_", "msg_vrtx_")):
        return "bedrock" if identifier.startswith("msg_bdrk_") else "vertex_ai"
    if answer.get("system_fingerprint") == "fp_ollama":
        return "ollama"
    marks = {"x_groq": "groq", "prompt_filter_results": "azure"}
    return next((name for mark, name in marks.items() if mark in answer), "")


def _shape_of(answer: Any) -> str:
    """Whose protocol an answer is, or a stream's last pieces; empty for none that is known."""
    if isinstance(answer, list):
        return next(filter(None, map(_shape_of, answer[:2] + answer[-2:])), "")
    if not isinstance(answer, dict):
        return ""
    return next((name for name, is_it in _SHAPES if is_it(answer)), "")


def _is_embedding(answer: dict[str, Any]) -> bool:
    data = answer.get("data")
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "embedding" in data[0]


_SHAPES = (
    (
        "openai",
        lambda a: isinstance(a.get("choices"), list) and not {"object", "model", "usage", "created"}.isdisjoint(a),
    ),
    ("openai", lambda a: a.get("object") == "response" and isinstance(a.get("output"), list)),
    ("openai", lambda a: a.get("object") == "list" and _is_embedding(a)),
    ("anthropic", lambda a: a.get("role") == "assistant" and "stop_reason" in a and isinstance(a.get("content"), list)),
    ("gemini", lambda a: isinstance(a.get("candidates"), list) and not {"usageMetadata", "modelVersion"}.isdisjoint(a)),
    ("bedrock", lambda a: isinstance(a.get("output"), dict) and "message" in a["output"] and "stopReason" in a),
    ("bedrock", lambda a: not {"inputTextTokenCount", "amazon-bedrock-invocationMetrics"}.isdisjoint(a)),
    ("bedrock", lambda a: not {"generation", "generation_token_count"} - a.keys()),
    ("ollama", lambda a: isinstance(a.get("done"), bool) and isinstance(a.get("model"), str)),
    ("ollama", lambda a: isinstance(a.get("embeddings"), list) and "prompt_eval_count" in a),
)
