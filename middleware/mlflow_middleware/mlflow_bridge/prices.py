"""The cost of a root's tokens on a Databricks workspace, which expects its clients to compute it, with MLflow's prices.

MLflow downloads a provider's prices first, which takes up to half a minute without a network: a thread of its own does.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import threading

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
def _cost(model: str, used: dict[str, int], provider: str) -> dict[str, float] | None:
    """Compute a cost like MLflow's client, but without ``litellm``: its import takes seconds, during which a fork would
    leave it locked in the child, and a hundred megabytes of an app that may not use it."""
    from mlflow.utils.providers import cost_per_token

    known = inspect.signature(cost_per_token).parameters  # older ones do not distinguish caches by age
    cached = {name: count for name, count in used.items() if name in known}
    price = functools.partial(cost_per_token, model, used["input_tokens"], used["output_tokens"], **cached)
    costs = None
    if provider:
        with contextlib.suppress(Exception):  # an address of prices that MLflow does not support
            costs = price(custom_llm_provider=provider)
    costs = costs or price()
    return {"input_cost": costs[0], "output_cost": costs[1], "total_cost": sum(costs)} if costs else None


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
