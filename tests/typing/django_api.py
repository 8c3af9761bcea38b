"""The types of the Django adapter, as type checkers see them; never executed."""

from __future__ import annotations

from collections.abc import Awaitable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import path
from typing_extensions import assert_type

from mlflow_middleware import asgi
from mlflow_middleware.django import (
    TraceMiddleware,
    annotate,
    carry,
    continue_trace,
    drop_trace,
    job_trace,
    keep_trace,
    outbound_headers,
)
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
    assert_type(get_asgi_application(), asgi.ASGIApp)
    asgi.TraceMiddleware(get_asgi_application())


def functions_for_views() -> None:
    """The functions that each adapter offers are those of the core."""
    assert_type(drop_trace(), None)
    assert_type(keep_trace(), None)
    assert_type(outbound_headers(), dict[str, str])
    with continue_trace("token") as nothing:
        assert_type(nothing, None)
    assert_type(carry(view)(HttpRequest()), HttpResponse)
