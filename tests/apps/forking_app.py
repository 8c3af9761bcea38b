"""A WSGI app whose requests start child processes, which trace and live on."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import mlflow

from mlflow_middleware import delivery
from mlflow_middleware.wsgi import TraceMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def work(request_id: str) -> None:
    time.sleep(0.2)  # longer than the request
    with mlflow.start_span("job"):
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})
        with mlflow.start_span("step"):
            pass


def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    path, request_id = environ["PATH_INFO"], environ.get("HTTP_X_REQUEST_ID", "")
    if path == "/fork" and os.fork() == 0:
        work(f"child-of-{request_id}")
        os._exit(0 if delivery.flush(60) else 1)
    if path == "/process":
        with mlflow.start_span("starts it"):
            multiprocessing.get_context("fork").Process(target=work, args=(f"child-of-{request_id}",)).start()
    return [b"ok"]


app = TraceMiddleware(bare)
