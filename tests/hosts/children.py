"""Children of ``multiprocessing`` that trace, and end: ``METHOD PREFIX COUNT``."""

from __future__ import annotations

import multiprocessing
import sys

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings


def work(request_id: str) -> None:
    """Trace in a child."""
    delivery.start(Settings.load())
    with mlflow.start_span("work"):
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})


def main() -> None:
    method, prefix, count = sys.argv[1:]
    delivery.start(Settings.load())
    processes = [
        multiprocessing.get_context(method).Process(target=work, args=(f"{prefix}-{number}",))  # type: ignore[attr-defined]
        for number in range(int(count))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
