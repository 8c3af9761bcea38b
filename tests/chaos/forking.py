"""Four threads trace while forty children are forked, which trace too; prints how many children did not end.

The children's request ids are ``<PREFIX>-<number>``.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

CHILDREN, THREADS, LIMIT = 40, 4, 60.0


def trace_until(stop: threading.Event) -> None:
    """Trace in a thread of the parent."""
    while not stop.is_set():
        with mlflow.start_span("parent"), mlflow.start_span("inner"):
            time.sleep(0.01)


def child(number: int) -> None:
    """Trace in a child."""
    request_id = f"{os.environ['PREFIX']}-{number}"
    with mlflow.start_span("child"):
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})
    mlflow.flush_trace_async_logging()
    os._exit(0)


def fork_all() -> set[int]:
    """Fork the children; return their process ids."""
    children = set()
    for number in range(CHILDREN):
        if (pid := os.fork()) == 0:
            child(number)
        children.add(pid)
        time.sleep(0.01)
    return children


def wait_for(children: set[int]) -> int:
    """Wait until the children have ended, and kill the others; return how many were killed."""
    deadline = time.monotonic() + LIMIT
    left = set(children)
    while left and time.monotonic() < deadline:
        left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(left)


def main() -> None:
    delivery.start(Settings.load())
    mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    with mlflow.start_span("before"):
        pass
    mlflow.flush_trace_async_logging()
    stop = threading.Event()
    threads = [threading.Thread(target=trace_until, args=(stop,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    children = fork_all()
    stop.set()
    for thread in threads:
        thread.join()
    print(wait_for(children), flush=True)
    os._exit(0)  # the parent's remaining traces are not measured


if __name__ == "__main__":
    main()
