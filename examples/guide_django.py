"""A chat on Django with a login, a stream, and an error that the app handles, as a project in one file.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn guide_django:asgi      # or: gunicorn --threads 4 guide_django:wsgi
"""

import os
from collections.abc import Callable, Iterator

import mlflow
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path

from mlflow_middleware.django import annotate
from mlflow_middleware.django.asgi import get_asgi_application

LOGINS = {"Bearer t-1": "jane"}
"""Stands in for the code that checks a login."""


class User(str):
    """Stands in for the user that ``AuthenticationMiddleware`` finds."""

    @property
    def username(self) -> str:
        """The name."""
        return str(self)


def log_in(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Stand in for ``AuthenticationMiddleware``, without a database."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.user = User(LOGINS.get(request.headers.get("Authorization", ""), ""))  # type: ignore[assignment]
        return get_response(request)

    return middleware


# settings.py

INSTALLED_APPS = ["mlflow_middleware.django"]
MIDDLEWARE = ["mlflow_middleware.django.TraceMiddleware"]

MIDDLEWARE += [f"{__name__}.log_in"]

MLFLOW_MIDDLEWARE = {"USER_ID_FROM": ["scope.user.username"]}

ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = __name__
SECRET_KEY = "signs nothing here"
os.environ.setdefault("DJANGO_SETTINGS_MODULE", __name__)

# views.py


def me(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.user), status=200 if request.user else 401)


@mlflow.trace(span_type="CHAT_MODEL")
def model(question: str) -> Iterator[str]:
    """Stand in for a model that answers word by word."""
    for word in question.split():
        yield f"data: {word}\n\n"


def stream(request: HttpRequest, chat_id: str) -> StreamingHttpResponse:
    annotate(session_id=chat_id)
    return StreamingHttpResponse(model(request.GET["question"]), content_type="text/event-stream")


def busy(request: HttpRequest) -> HttpResponse:
    try:
        raise RuntimeError("the model is busy")
    except RuntimeError as error:
        annotate(exception=error)
        return JsonResponse({"detail": "try again"}, status=503)


def health(request: HttpRequest) -> HttpResponse:
    """Answer the health check; not traced."""
    return HttpResponse("ok")


# urls.py

urlpatterns = [
    path("me", me),
    path("chats/<str:chat_id>/stream", stream),
    path("busy", busy),
    path("health", health),
    path("", include("mlflow_middleware.django.urls")),
]

asgi = get_asgi_application()
wsgi = get_wsgi_application()
