"""Four threads trace while forty children are forked, which trace too; prints how many children ended normally."""

import os
import sys
import threading
import time

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

CHILDREN, THREADS = 40, 4

delivery.start(Settings.load())
stop = threading.Event()


def trace() -> None:
    while not stop.is_set():
        with mlflow.start_span("parent"), mlflow.start_span("inner"):
            time.sleep(0.01)


def child(index: int) -> None:
    with mlflow.start_span(f"child-{index}"):
        mlflow.update_current_trace(client_request_id=f"child-{index}", tags={"client_request_id": f"child-{index}"})
    os._exit(0 if delivery.flush(200) else 1)


threads = [threading.Thread(target=trace) for _ in range(THREADS)]
for thread in threads:
    thread.start()
pids = []
for index in range(CHILDREN):
    pid = os.fork()
    if pid == 0:
        child(index)
    pids.append(pid)
    time.sleep(0.01)
stop.set()
for thread in threads:
    thread.join()

deadline = time.monotonic() + 220
left = set(pids)
codes = []
while left and time.monotonic() < deadline:
    for pid in list(left):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            left.discard(pid)
            codes.append(os.waitstatus_to_exitcode(status))
    time.sleep(0.02)
for pid in left:
    os.kill(pid, 9)
print("exit codes", *codes, file=sys.stderr)
print(f"{codes.count(0)} of {CHILDREN} ended well, {len(left)} deadlocked", flush=True)
sys.exit(0 if codes.count(0) == CHILDREN else 1)
