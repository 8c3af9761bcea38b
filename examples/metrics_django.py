"""A Django project with a route for Prometheus, in one file.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn metrics_django:application
"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from mlflow_middleware.django.metrics import metrics

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="signs nothing here",
    INSTALLED_APPS=["mlflow_middleware.django"],
    MIDDLEWARE=["mlflow_middleware.django.TraceMiddleware"],
)


def chat(request: HttpRequest, chat_id: str) -> JsonResponse:
    """Show a chat."""
    return JsonResponse({"chat": chat_id})


def health(request: HttpRequest) -> JsonResponse:
    """Answer the health check; not traced."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("chats/<str:chat_id>", chat),
    path("health", health),
    path("metrics", metrics),
]
application = get_wsgi_application()
