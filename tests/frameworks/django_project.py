"""A Django project in one file: regular expressions, DRF's and Ninja's routers."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import include, path, re_path

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of no use",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "mlflow_middleware.django"],
        MIDDLEWARE=["mlflow_middleware.django.TraceMiddleware"],
        MLFLOW_MIDDLEWARE={"include": "unrouted"},
        REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None},
    )
    django.setup(set_prefix=False)

from ninja import NinjaAPI
from rest_framework.exceptions import APIException, NotFound
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.viewsets import ViewSet

from mlflow_middleware.request_trace import annotate


class Things(ViewSet):
    """One item that exists, one that does not, and one that fails."""

    def list(self, request: Any) -> Response:
        return Response([])

    def retrieve(self, request: Any, pk: str) -> Response:
        if pk == "0":
            raise NotFound
        if pk == "503":
            raise APIException
        return Response(f"1 of {1 // (int(pk) - 1)}")


router = SimpleRouter()
router.register("things", Things, basename="thing")
api = NinjaAPI()


@api.get("/items/{int:n}")
def item(request: HttpRequest, n: int) -> str:
    return f"1 of {1 // (n - 1)}"


def chat(request: HttpRequest, n: str) -> HttpResponse:
    if int(n) == 0:
        raise Http404
    return HttpResponse(f"1 of {1 // (int(n) - 1)}")


def said(request: HttpRequest, n: int) -> HttpResponse:
    annotate(route="/said/{n}")
    return HttpResponse()


urlpatterns = [
    path("unsaid/<int:n>", said),
    path("chats/<int:n>", chat),
    re_path(r"^old/(?P<n>[0-9]+)(?:/page-[0-9]+)?/$", chat),
    re_path(r"^numbered/", include([re_path(r"^([0-9]+)/$", chat)])),
    path("drf/", include(router.urls)),
    path("ninja/", api.urls),
]

wsgi = get_wsgi_application()
asgi = get_asgi_application()
