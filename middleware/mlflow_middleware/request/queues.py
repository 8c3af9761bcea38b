"""The job that a worker of Celery or RQ runs here: what travelled with it, and whether its process is about to end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlflow_middleware._internal.guard import guarded


@guarded
def carrier() -> Mapping[Any, Any] | None:
    """What travelled with the job that runs here: Celery's headers, RQ's ``meta``; None outside such a job."""
    celery, rq = sys.modules.get("celery"), sys.modules.get("rq")
    task = getattr(celery, "current_task", None)
    if task and not task.request.called_directly:
        return task.request.headers or {}
    job = rq.get_current_job() if rq else None
    return job.meta if job else None


@guarded
def ends_process() -> bool:
    """Return whether the process may end with the job: RQ's workers fork for each, and end it by ``os._exit``."""
    rq = sys.modules.get("rq")
    return rq is not None and rq.get_current_job() is not None
