"""The usage of a trace: the tokens and the cost of its spans, and the models that answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from mlflow.entities import LiveSpan
from mlflow.tracing.utils import aggregate_cost_from_spans, aggregate_usage_from_spans

from mlflow_middleware.capture.model_calls import counts_of, name_of
from mlflow_middleware.mlflow_bridge.span_attributes import attributes_of, decoded
from mlflow_middleware.mlflow_bridge.tracking_client import tracking_uri
from mlflow_middleware.mlflow_bridge.uris import is_databricks
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.description import Description
from mlflow_middleware.trace.record import Contents

_COUNTS = ("gen_ai.usage.", "llm.token_count.", "llm.usage.", "ai.usage.")
"""Prefixes of the attributes for tokens in other tools' spans; servers treat them like MLflow's own."""

MODELS = (keys.MODEL, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
"""Attributes for the name of a model."""

_MAX_MODELS = 10
"""Maximum number of models in the tag of a trace."""


def add_call(description: Description, contents: Contents, spans: Sequence[LiveSpan]) -> bool:
    """Add the model, the time until a stream begins, and the reported tokens to a root; leave the tokens out if a span
    inside has reported its own. Return whether it has tokens now."""
    description.call, used = contents.call, contents.usage
    if (first := description.attributes.get("http.response.time_to_first_byte")) is not None:
        description.attributes["gen_ai.response.time_to_first_chunk"] = first
    if not used or (spans and any(map(_reports_usage, spans))):
        return False
    description.texts[keys.USAGE] = json.dumps(dict(used))
    description.attributes.update(counts_of(used))
    return True


def _reports_usage(span: LiveSpan) -> bool:
    attributes = attributes_of(span._span)
    return keys.USAGE in attributes or any(key.startswith(_COUNTS) for key in list(attributes))


def agree(description: Description) -> None:
    """Copy tokens that the app has set to OpenTelemetry's names."""
    used = decoded(description.texts.get(keys.USAGE))
    if isinstance(used, dict):
        description.attributes.update(counts_of(used))


def keys_of(spans: Iterable[LiveSpan]) -> set[str]:
    """Return the names of all attributes that the spans have."""
    return set().union(*[attributes_of(span._span) for span in spans])


def add_models(description: Description, spans: Sequence[LiveSpan]) -> None:
    """Add a tag with the models that answered, for searches: those of the spans, or else the root's."""
    models = {name for span in spans if (name := _model_of(attributes_of(span._span)))}
    own = description.call.attributes.get(keys.MODEL, "") if description.call and not models else ""
    if named := str(own) or ", ".join(sorted(models)[:_MAX_MODELS]):
        description.tags.setdefault(keys.MODELS, named)


def _model_of(attributes: Mapping[str, Any]) -> str | None:
    return next((name for key in MODELS if key in attributes and (name := name_of(decoded(attributes[key])))), None)


def summary(
    texts: Mapping[str, Any], spans: Sequence[LiveSpan], known: Set[str], usage: str | None = None
) -> dict[str, str]:
    """Return the metadata that MLflow adds when a root ends: shortened inputs and outputs, total tokens and cost.

    Args:
        texts: The root's attributes as JSON.
        spans: The spans that may have used tokens.
        known: The result of `keys_of` for these spans.
        usage: The tokens as JSON, used if no span has any.
    """
    found = {
        keys.TRACE_INPUTS: _shortened(texts.get(keys.INPUTS)),
        keys.TRACE_OUTPUTS: _shortened(texts.get(keys.OUTPUTS)),
    }
    if keys.USAGE in known and (used := _summed(aggregate_usage_from_spans, spans)):
        usage = json.dumps(used)
    if usage:
        found[keys.TOKEN_USAGE] = usage
    if keys.COST in known and is_databricks(tracking_uri()):  # tracking servers sum it up themselves
        found[keys.TRACE_COST] = json.dumps(_summed(aggregate_cost_from_spans, spans))
    return found


def _summed(total: Callable[[list[LiveSpan]], Any], spans: Sequence[LiveSpan]) -> Any:
    """Return MLflow's total; None if the app has set values that are not numbers."""
    try:
        return total(list(spans))
    except (TypeError, ValueError, AttributeError, KeyError):
        return None


def _shortened(text: str | None) -> str:
    """Shorten inputs or outputs for a trace's metadata, like MLflow (``_truncate_metadata``)."""
    text = text or ""
    return text if len(text) <= keys.MAX_METADATA else text[: keys.MAX_METADATA - 3] + "..."
