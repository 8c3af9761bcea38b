"""A script that traces its own work: ``python nightly.py``, by cron or by hand."""

import mlflow

from mlflow_middleware.request_trace import job_trace


@job_trace
def tidy(days: int) -> int:
    with mlflow.start_span("delete"):
        return days * 2


if __name__ == "__main__":
    tidy(30)
