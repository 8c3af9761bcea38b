"""The chat on Django, as a project in one file.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn --threads 8 chat.django_app:wsgi        # in examples/; then open http://127.0.0.1:8000
"""

import json

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import include, path
from django.views.decorators.http import require_POST

from . import shared

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="signs nothing here",
    INSTALLED_APPS=["mlflow_middleware.django"],
    MIDDLEWARE=["mlflow_middleware.django.TraceMiddleware"],
    MLFLOW_MIDDLEWARE={"EXCLUDE": shared.NOT_TRACED},
)


def page(request: HttpRequest) -> HttpResponse:
    """The chat's page."""
    return HttpResponse(shared.page("Django"))


@require_POST
def answer(request: HttpRequest, chat_id: str) -> HttpResponse | StreamingHttpResponse:
    """Answer the last message, as one answer or as a stream."""
    conversation = json.loads(request.body)
    is_stream = bool(conversation.get("stream"))
    chunks = shared.answer(conversation["messages"], is_stream)
    if is_stream:
        return StreamingHttpResponse(shared.events(chunks), content_type="text/event-stream")
    return JsonResponse(shared.completion(chunks))


@require_POST
def fail(request: HttpRequest, chat_id: str) -> HttpResponse:
    """Fail as a model might; the trace becomes an error and holds the exception."""
    raise RuntimeError(f"the model has nothing to say in chat {chat_id}")


def trace(request: HttpRequest, trace_id: str) -> HttpResponse:
    """Redirect to the trace of an answer in MLflow."""
    return HttpResponseRedirect(shared.trace_page(trace_id))


def health(request: HttpRequest) -> JsonResponse:
    """Answer the health check; not traced."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("", page),
    path("chats/<str:chat_id>/messages", answer),
    path("chats/<str:chat_id>/fail", fail),
    path("traces/<str:trace_id>", trace),
    path("health", health),
    path("", include("mlflow_middleware.django.urls")),
]

wsgi = get_wsgi_application()
