"""The cost of a root's tokens on a Databricks workspace, which expects its clients to compute it, with MLflow's prices.

MLflow downloads a provider's prices first, which takes up to half a minute without a network: a thread of its own does.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

from mlflow_middleware._internal.guard import guarded
from mlflow_middleware.trace import keys
from mlflow_middleware.trace.description import Description

_loaded: set[str] = set()
_loading: dict[str, threading.Thread] = {}


def add_cost(description: Description) -> None:
    """Add the cost of the root's own tokens; none until the prices of the model's provider are loaded."""
    used, call = description.texts.get(keys.USAGE), description.call
    if not (used and call and keys.MODEL in call.attributes):
        return
    model, provider = str(call.attributes[keys.MODEL]), str(call.attributes.get(keys.PROVIDER, ""))
    if provider not in _loaded:
        _load(model, provider)
    elif cost := _cost(model, json.loads(used), provider):
        description.texts[keys.COST] = description.metadata[keys.TRACE_COST] = json.dumps(cost)


@guarded
def _cost(model: str, used: dict[str, int], provider: str) -> Any:
    from mlflow.tracing.utils import calculate_cost_by_model_and_token_usage

    return calculate_cost_by_model_and_token_usage(model, used, provider)


def _load(model: str, provider: str) -> None:
    loading = _loading.get(provider)
    if loading is None or not loading.is_alive():  # a fork ends it
        loading = threading.Thread(target=_price_one, args=(model, provider), name="mlflow-prices", daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter is exiting
            loading.start()
            _loading[provider] = loading


def _price_one(model: str, provider: str) -> None:
    from mlflow_middleware.mlflow_bridge import silence_thread  # which imports this module

    silence_thread()
    _cost(model, {"input_tokens": 1, "output_tokens": 1}, provider)
    _loaded.add(provider)
