"""The view for Prometheus in Django projects.

::

    urlpatterns = [path("metrics", metrics), ...]

``mlflow_middleware.metrics`` describes the metrics. Requests to the view itself are not traced. It is a sync view,
which Django runs in a thread under ASGI.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods

from mlflow_middleware.metrics import scrape


@require_http_methods(["GET", "HEAD"])
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer a scrape."""
    body, kind = scrape(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=kind)
