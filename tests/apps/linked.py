"""Requests in which full MLflow's runs and models become active.

python -m tests.apps.linked EXPERIMENT DELIVERY; prints the ids of the runs and of the model.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable

import mlflow

from mlflow_middleware import delivery
from tests.apps.ways import asked, traced

found: dict[str, str] = {}


def run() -> None:
    with mlflow.start_run() as started:
        mlflow.log_metric("answers", 1)
    found["run"] = started.info.run_id


def run_with_child() -> None:
    with mlflow.start_run() as started, mlflow.start_span("child"):
        pass
    found["run with child"] = started.info.run_id


def nested_runs() -> None:
    with mlflow.start_run(), mlflow.start_run(nested=True) as inner:
        found["nested runs"] = inner.info.run_id


def other_experiment() -> None:
    other = mlflow.create_experiment(f"{sys.argv[1]}-other")
    with mlflow.start_run(experiment_id=other) as started:
        found["other experiment"] = started.info.run_id


def own_word() -> None:
    with mlflow.start_run():
        mlflow.update_current_trace(metadata={"mlflow.sourceRun": "of the app"})
    found["own word"] = "of the app"


def model() -> None:
    with mlflow.set_active_model(name="bot") as active:
        found["model"] = active.model_id


def nothing() -> None:
    """Afterwards, no run or model is active any more."""


WAYS: dict[str, Callable[[], None]] = {
    "run": run,
    "run with child": run_with_child,
    "nested runs": nested_runs,
    "other experiment": other_experiment,
    "own word": own_word,
    "model": model,
    "nothing": nothing,
}


async def main() -> None:
    middleware = traced(sys.argv[1], lambda way: WAYS[way](), delivery=sys.argv[2])
    for way in WAYS:
        await asked(middleware, way)
    assert delivery.flush(60)
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
