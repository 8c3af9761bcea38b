"""An app whose requests hand their work to uWSGI's spooler, which traces it."""

from __future__ import annotations

from typing import Any

import mlflow
import uwsgi  # type: ignore[import-untyped] # uWSGI's own, inside

from mlflow_middleware import delivery
from mlflow_middleware.settings import Settings

delivery.start(Settings.load())


def work(task: dict[bytes, bytes]) -> int:
    request_id = task[b"id"].decode()
    with mlflow.start_span("work"):
        mlflow.update_current_trace(client_request_id=request_id, tags={"client_request_id": request_id})
    return int(uwsgi.SPOOL_OK)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] != "/health":
        uwsgi.spool({b"id": environ["HTTP_X_REQUEST_ID"].encode()})
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


uwsgi.spooler = work
