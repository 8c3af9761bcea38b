"""Traces in child processes, which end the way their library ends them: ``KIND PREFIX``.

Each child's request id is ``<PREFIX>-<number>``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

CHILDREN = 5


def work(request_id: str) -> None:
    """Trace in a child; one that was not forked starts delivery first."""
    delivery.start(Settings.load())
    with mlflow.start_span("work"):
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})


def processes(method: str, ids: list[str]) -> None:
    context = multiprocessing.get_context(method)
    running = [context.Process(target=work, args=(request_id,)) for request_id in ids]  # type: ignore[attr-defined]
    for process in running:
        process.start()
    for process in running:
        process.join()


def executor(method: str, ids: list[str]) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        list(pool.map(work, ids))


def pool(method: str, ids: list[str]) -> None:
    with multiprocessing.get_context(method).Pool(2) as workers:  # whose end terminates them
        workers.map(work, ids)


def billiard(_: str, ids: list[str]) -> None:
    import billiard

    running = [billiard.Process(target=work, args=(request_id,)) for request_id in ids]
    for process in running:
        process.start()
    for process in running:
        process.join()


KINDS: dict[str, Callable[[str, list[str]], None]] = {
    "process": processes,
    "executor": executor,
    "pool": pool,
    "billiard": billiard,
}


def main() -> None:
    kind, method, prefix = sys.argv[1:]
    if os.environ.get("TRACES_IN_PARENT"):
        work(f"parent-of-{prefix}")
    KINDS[kind](method, [f"{prefix}-{number}" for number in range(CHILDREN)])


if __name__ == "__main__":
    main()
