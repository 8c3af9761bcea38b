"""A Django project in one file, with several URL configurations; `tests.apps.django_servers` serves it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import mlflow
from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import Http404, HttpResponseBase
from django.urls import include, path, re_path
from django.utils.deprecation import MiddlewareMixin

from mlflow_middleware.django import TraceMiddleware as BaseTraceMiddleware
from mlflow_middleware.request_trace import annotate, current
from tests.apps import afterwards

SECRET_KEY = "of no use"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.apps.django_settings"
INSTALLED_APPS = ["mlflow_middleware.django"]
MIDDLEWARE = [
    "tests.apps.django_settings.Cache",
    *(
        []
        if "APP_UNTRACED" in os.environ
        else [os.environ.get("APP_TRACE", "mlflow_middleware.django.TraceMiddleware")]
    ),
    "tests.apps.django_settings.Rescue",
    "django.middleware.common.CommonMiddleware",
]
MLFLOW_MIDDLEWARE = json.loads(os.environ.get("APP_OPTIONS", "{}"))
LOGGING = {"version": 1, "disable_existing_loggers": False}


class OwnTraceMiddleware(BaseTraceMiddleware):
    """A project's own subclass of our middleware."""


class Rescue(MiddlewareMixin):
    """Turns one kind of exception into an answer."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return HttpResponse("rescued", status=409) if isinstance(exception, LookupError) else None


def seen(chat_id: str) -> dict[str, Any]:
    """Return what a view knows about its request."""
    trace = current()
    return {"chat_id": chat_id, "trace_id": trace.trace_id if trace else None}


def chat(request: HttpRequest, chat_id: str, **_: Any) -> HttpResponseBase:
    return JsonResponse(seen(chat_id))


async def chat_async(request: HttpRequest, chat_id: str, **_: Any) -> HttpResponseBase:
    return JsonResponse(seen(chat_id))


def rescued(request: HttpRequest) -> HttpResponseBase:
    raise LookupError("no such chat")


async def rescued_async(request: HttpRequest) -> HttpResponseBase:
    raise LookupError("no such chat")


def gone(request: HttpRequest) -> HttpResponseBase:
    raise Http404("no such chat")


def stream(request: HttpRequest) -> HttpResponseBase:
    def chunks() -> Iterator[str]:
        for number in range(3):
            annotate(tags={"last-number": number})
            yield f"{number}\n"

    return StreamingHttpResponse(chunks(), content_type="text/plain")


async def stream_async(request: HttpRequest) -> HttpResponseBase:
    async def chunks() -> AsyncIterator[str]:
        for number in range(3):
            annotate(tags={"last-number": number})
            yield f"{number}\n"

    return StreamingHttpResponse(chunks(), content_type="text/plain")


def broken_stream(request: HttpRequest) -> HttpResponseBase:
    def chunks() -> Iterator[str]:
        yield "0\n"
        raise RuntimeError("the model went away")

    return StreamingHttpResponse(chunks(), content_type="text/plain")


class AtWork(HttpResponse):
    """Works on when it is closed, before the receivers of `request_finished` run."""

    def close(self) -> None:
        self.begin()
        finishing.append(True)
        super().close()

    def begin(self) -> None:
        afterwards.begin()


def after(request: HttpRequest) -> HttpResponseBase:
    return AtWork("answer", content_type="text/plain")


def after_stream(request: HttpRequest) -> HttpResponseBase:
    response: Any = StreamingHttpResponse(iter(["ans", "wer"]), content_type="text/plain")
    response._resource_closers.append(afterwards.work)
    return cast(HttpResponseBase, response)


finishing: list[bool] = []
"""An entry for each response whose end is still to come."""


@receiver(request_finished)
def finish(sender: object, **_: Any) -> None:
    if finishing:
        finishing.pop()
        afterwards.end()


def open_gate(request: HttpRequest, request_id: str) -> HttpResponseBase:
    afterwards.open_gate(request_id)
    return HttpResponse()


def pickled(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse("pickled", headers={"X-Pickle": "yes"})


class Cache(MiddlewareMixin):
    """Keeps a copy of an answer, as Django's cache middleware does, and returns that."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if "X-Pickle" not in response.headers:
            return response
        copy: HttpResponse = pickle.loads(pickle.dumps(response))
        response.close()
        return copy


begun, may_end = threading.Event(), threading.Event()


async def slow_async(request: HttpRequest, chat_id: int) -> HttpResponseBase:
    begun.set()
    await asyncio.Event().wait()  # until Django cancels it
    return HttpResponse()


def slow(request: HttpRequest, chat_id: int) -> HttpResponseBase:
    may_end.clear()
    begun.set()
    may_end.wait(30)
    return HttpResponse("too late")


async def has_begun(request: HttpRequest) -> HttpResponseBase:
    """Answer as soon as a view is running."""
    await asyncio.to_thread(begun.wait, 30)
    begun.clear()
    return HttpResponse()


async def let_go(request: HttpRequest) -> HttpResponseBase:
    may_end.set()
    return HttpResponse()


async def endless(request: HttpRequest, chat_id: int) -> HttpResponseBase:
    async def chunks() -> AsyncIterator[str]:
        for number in itertools.count():
            yield f"{number}\n"
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(chunks(), content_type="text/plain")


def health(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse()


def metrics(request: HttpRequest) -> HttpResponseBase:
    """A stream on an excluded path, with a span in it."""

    def chunks() -> Iterator[str]:
        with mlflow.start_span("metrics"):
            yield "up 1"

    return StreamingHttpResponse(chunks())


async def metrics_async(request: HttpRequest) -> HttpResponseBase:
    async def chunks() -> AsyncIterator[str]:
        with mlflow.start_span("metrics"):
            yield "up 1"

    return StreamingHttpResponse(chunks())


ALWAYS = HttpResponse("the same", headers={"Access-Control-Expose-Headers": "X-Own"})


def always(request: HttpRequest) -> HttpResponseBase:
    """Answers all requests with one object."""
    return ALWAYS


chats = [
    path("sync/<str:chat_id>", chat),
    path("async/<str:chat_id>", chat_async),
    re_path(r"^old/(?P<chat_id>[a-z]+)/$", chat),
]
urlpatterns = [
    path("shops/<slug:shop>/", include((chats, "chats"))),
    path("rescued", rescued),
    path("async/rescued", rescued_async),
    path("gone", gone),
    path("stream", stream),
    path("async/stream", stream_async),
    path("broken-stream", broken_stream),
    path("after", after),
    path("after/stream", after_stream),
    path("open/<str:request_id>", open_gate),
    path("pickled", pickled),
    path("slow/<int:chat_id>", slow),
    path("async/slow/<int:chat_id>", slow_async),
    path("has-begun", has_begun),
    path("let-go", let_go),
    path("endless/<int:chat_id>", endless),
    path("health", health),
    path("metrics", metrics),
    path("healthz", metrics_async),
    path("always", always),
]
