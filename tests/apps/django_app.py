"""The test app on Django: a project in one file, for WSGI and ASGI."""

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator

import django
import mlflow
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import include, path

from mlflow_middleware.django.asgi import get_asgi_application as get_asgi_application_with_lifespan
from tests.apps import behaviour

SECRET_KEY = "of no use"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.apps.django_app"
INSTALLED_APPS = ["mlflow_middleware.django"]
MIDDLEWARE = [
    "mlflow_middleware.django.TraceMiddleware",
    "django.middleware.common.CommonMiddleware",
    *(["django.middleware.csrf.CsrfViewMiddleware"] if "APP_CSRF" in os.environ else []),
]
MLFLOW_MIDDLEWARE = {name.upper(): value for name, value in behaviour.OPTIONS.items()}
LOGGING = {"version": 1, "disable_existing_loggers": False}


def chat_sync(request: HttpRequest, chat_id: str) -> HttpResponseBase:
    return JsonResponse(behaviour.answer(chat_id))


async def chat_async(request: HttpRequest, chat_id: str) -> HttpResponseBase:
    return JsonResponse(await behaviour.answer_async(chat_id))


def fail(request: HttpRequest) -> HttpResponseBase:
    behaviour.fail()
    return HttpResponse()


def say(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(behaviour.say())


def outbound(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse(behaviour.outbound())


def log(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(behaviour.log_line(), content_type="text/plain; charset=utf-8")


def stream(request: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(behaviour.chunks(), content_type="text/plain")


async def stream_async(request: HttpRequest) -> HttpResponseBase:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in behaviour.chunks():
            yield chunk

    return StreamingHttpResponse(chunks(), content_type="text/plain")


def file(request: HttpRequest) -> HttpResponseBase:
    return FileResponse(io.BytesIO(b"abc"), content_type="text/plain")


def announced_stream(request: HttpRequest) -> HttpResponseBase:
    """A response that the client has received in full before its content ends."""
    return StreamingHttpResponse(iter([b"abc", b"def"]), content_type="text/plain", headers={"Content-Length": "6"})


def broken_stream(request: HttpRequest) -> HttpResponseBase:
    def chunks() -> Iterator[bytes]:
        yield b"abc"
        raise ValueError("in the middle")

    return StreamingHttpResponse(chunks(), content_type="text/plain")


def echo(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse(request.body, content_type=request.headers.get("Content-Type"))


def unread(request: HttpRequest) -> HttpResponseBase:
    return JsonResponse({})


def events(request: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(behaviour.events(), content_type="text/event-stream")


def ticks(request: HttpRequest) -> HttpResponseBase:
    return StreamingHttpResponse(behaviour.ticks(), content_type="text/event-stream")


async def ticks_async(request: HttpRequest) -> HttpResponseBase:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in behaviour.ticks():
            yield chunk
            await asyncio.sleep(0)

    return StreamingHttpResponse(chunks(), content_type="text/event-stream")


def status(request: HttpRequest, code: int) -> HttpResponseBase:
    return HttpResponse(status=code)


def health(request: HttpRequest) -> HttpResponseBase:
    with mlflow.start_span("health"):
        return JsonResponse({})


urlpatterns = [
    path("sync/chats/<str:chat_id>", chat_sync),
    path("async/chats/<str:chat_id>", chat_async),
    path("fail", fail),
    path("annotate", say),
    path("outbound", outbound),
    path("log", log),
    path("stream", stream),
    path("async/stream", stream_async),
    path("file", file),
    path("announced-stream", announced_stream),
    path("broken-stream", broken_stream),
    path("echo", echo),
    path("unread", unread),
    path("events", events),
    path("ticks", ticks),
    path("async/ticks", ticks_async),
    path("status/<int:code>", status),
    path("health", health),
    path("", include("mlflow_middleware.django.urls")),
]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.apps.django_app")
if os.path.basename(sys.argv[0]) != "manage.py":
    django.setup(set_prefix=False)
    wsgi = get_wsgi_application()
    asgi = get_asgi_application()
    with_lifespan = get_asgi_application_with_lifespan()
