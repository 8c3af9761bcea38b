"""The types of the Django adapter, as type checkers see them; never executed."""

from __future__ import annotations

from collections.abc import Awaitable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from typing_extensions import assert_type

from mlflow_middleware import asgi
from mlflow_middleware.django import TraceMiddleware, annotate, job_trace
from mlflow_middleware.django.asgi import get_asgi_application
from mlflow_middleware.django.feedback import feedback
from mlflow_middleware.django.metrics import metrics

urlpatterns = [path("feedback", feedback), path("metrics", metrics)]


@job_trace
def view(request: HttpRequest) -> HttpResponse:
    """A view of a user's app."""
    annotate(user_id=str(request.user))
    return HttpResponse("yes")


async def async_view(request: HttpRequest) -> HttpResponse:
    """An async one."""
    return view(request)


def project(request: HttpRequest) -> None:
    assert_type(feedback(request), HttpResponse)
    assert_type(metrics(request), HttpResponse)
    assert_type(view(request), HttpResponse)
    assert_type(TraceMiddleware(view)(request), HttpResponseBase | Awaitable[HttpResponseBase])
    TraceMiddleware(async_view)
    asgi.TraceMiddleware(get_asgi_application())
