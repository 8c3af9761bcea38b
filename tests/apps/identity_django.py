"""A Django project with users, sessions and a database, for WSGI and ASGI; the database knows who is logged in."""

import os
from typing import Any

import django
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import path

from tests.apps import behaviour

SECRET_KEY = "of no use"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.apps.identity_django"
INSTALLED_APPS = [
    "mlflow_middleware.django",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
]
MIDDLEWARE = [
    "mlflow_middleware.django.TraceMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("APP_DATABASE", ":memory:")}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MLFLOW_MIDDLEWARE = {name.upper(): value for name, value in behaviour.OPTIONS.items()}
LOGGING = {"version": 1, "disable_existing_loggers": False}


def login(request: HttpRequest, name: str) -> HttpResponseBase:
    from django.contrib import auth

    user, _ = auth.get_user_model().objects.get_or_create(username=name)
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    session: Any = request.session
    session["chat_id"] = f"chat-of-{name}"
    return JsonResponse({"id": user.pk})


def chat(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse("answer")


async def chat_async(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(behaviour.log_line())


async def stream_async(request: HttpRequest) -> HttpResponseBase:
    async def chunks() -> Any:
        yield b"answer"

    return StreamingHttpResponse(chunks())


def health(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse()


urlpatterns = [
    path("login/<str:name>", login),
    path("chat", chat),
    path("async/chat", chat_async),
    path("async/stream", stream_async),
    path("health", health),
]

if "APP_DATABASE" in os.environ:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.apps.identity_django"
    django.setup()
    call_command("migrate", verbosity=0)
    wsgi = get_wsgi_application()
    asgi = get_asgi_application()
