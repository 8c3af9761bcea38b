"""Middleware and request functions for Django projects: WSGI and ASGI, sync and async views.

::

    INSTALLED_APPS = [..., "mlflow_middleware.django"]
    MIDDLEWARE = ["mlflow_middleware.django.TraceMiddleware", ...]
    MLFLOW_MIDDLEWARE = {"SESSION_ID_HEADER": "X-Chat-ID"}

    # urls.py, for users' feedback: see mlflow_middleware.django.feedback
    urlpatterns = [path("", include("mlflow_middleware.django.urls")), ...]

Put it first, so that the trace covers the other middleware. ``manage.py check`` reports wrong settings.
"""

from mlflow_middleware.django.middleware import TraceMiddleware
from mlflow_middleware.request_trace import (
    annotate,
    carry,
    continue_trace,
    drop_trace,
    job_trace,
    keep_trace,
    outbound_headers,
)

__all__ = [
    "TraceMiddleware",
    "annotate",
    "carry",
    "continue_trace",
    "drop_trace",
    "job_trace",
    "keep_trace",
    "outbound_headers",
]
