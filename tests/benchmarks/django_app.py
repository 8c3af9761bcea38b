"""The chat app on Django."""

from __future__ import annotations

import json

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from tests.benchmarks import ways

ours = ways.WAY.startswith("ours")
settings.configure(
    SECRET_KEY="for a benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["mlflow_middleware.django"] if ours else [],
    MIDDLEWARE=[
        *(["mlflow_middleware.django.TraceMiddleware"] if ours else []),
        "django.middleware.common.CommonMiddleware",  # as in each new project: it sets the length of an answer
    ],
)
answer = ways.handler()


def chat(request: HttpRequest, chat_id: str) -> HttpResponse:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return JsonResponse(answer(json.loads(request.body), headers))


def health(request: HttpRequest) -> HttpResponse:
    return JsonResponse({})


urlpatterns = [path("chats/<chat_id>", chat), path("health", health)]

if ways.WAY == "otel":
    from opentelemetry.instrumentation.django import DjangoInstrumentor

    ways.instrument_by_opentelemetry()
    DjangoInstrumentor().instrument(excluded_urls="health")
app = get_wsgi_application()

ways.ready()
