"""A Django project in one file, with both of its entry points."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG=bool(os.environ.get("DEBUG")),
        ROOT_URLCONF=__name__,
        SECRET_KEY="not needed",
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        WSGI_APPLICATION=f"{__name__}.wsgi",
    )


def chat(request: HttpRequest, chat_id: str) -> HttpResponse:
    return JsonResponse({"chat": chat_id})


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


urlpatterns = [path("chats/<chat_id>", chat), path("health", health)]

wsgi = get_wsgi_application()
asgi = get_asgi_application()
