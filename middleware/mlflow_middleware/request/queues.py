"""The current job in a worker of Celery or RQ: its headers, and whether the process ends with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mlflow_middleware._internal.guard import guarded


@guarded
def carrier() -> Mapping[Any, Any] | None:
    """Return the headers of the current job: Celery's headers or RQ's ``meta``; None outside a job."""
    celery, rq = sys.modules.get("celery"), sys.modules.get("rq")
    task = getattr(celery, "current_task", None)
    if task and not task.request.called_directly:
        return task.request.headers or {}
    job = rq.get_current_job() if rq else None
    return job.meta if job else None


@guarded
def ends_process() -> bool:
    """Return whether the process may end with the job: RQ forks for each job and exits by ``os._exit``."""
    rq = sys.modules.get("rq")
    return rq is not None and rq.get_current_job() is not None
