"""See ``deserving``: a Django project in one file, for WSGI and ASGI."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, JsonResponse
from django.urls import path

from tests.apps import deserving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", __name__)

SECRET_KEY = "a key for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
INSTALLED_APPS = ["mlflow_middleware.django"]
MIDDLEWARE = ["mlflow_middleware.django.TraceMiddleware"]
MLFLOW_MIDDLEWARE = {name.upper(): value for name, value in deserving.OPTIONS.items()}


def do(request: HttpRequest, what: str) -> JsonResponse:
    assert isinstance(request.body, bytes)
    return JsonResponse(deserving.do(what))


def item(request: HttpRequest, item: str) -> JsonResponse:
    raise Http404


def left_out(request: HttpRequest) -> JsonResponse:
    return JsonResponse(deserving.left_out())


urlpatterns = [
    path("do/<str:what>", do),
    path("sync/<str:what>", do),
    path("items/<str:item>", item),
    path("left-out", left_out),
]

wsgi = get_wsgi_application()
asgi = get_asgi_application()
