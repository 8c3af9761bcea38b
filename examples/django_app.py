"""A chat on Django, in a one-file project. Each request is one MLflow trace.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    uvicorn django_app:asgi      # or: gunicorn django_app:wsgi
    python django_app.py check   # the middleware's settings are checked too
"""

import json
import sys
from typing import Any

import mlflow
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views import View
from mlflow.entities import SpanType

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="signs nothing here",
    INSTALLED_APPS=["mlflow_middleware.django"],
    MIDDLEWARE=["mlflow_middleware.django.TraceMiddleware"],
)


@mlflow.trace(span_type=SpanType.CHAT_MODEL)
async def pretend_model(messages: list[dict[str, str]]) -> dict[str, Any]:
    """Stand in for a real model; the answer has OpenAI's format, which MLflow shows as a chat."""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    text = f"Question {len(questions)} was: {questions[-1]}" if questions else "Ask me something."
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


class Messages(View):
    """The messages of a chat."""

    async def post(self, request: HttpRequest, chat_id: str) -> JsonResponse:
        """Answer the last message; the model's span nests under the request's."""
        return JsonResponse(await pretend_model(json.loads(request.body)["messages"]))


class Fail(View):
    """Fails as a model might."""

    def post(self, request: HttpRequest, chat_id: str) -> JsonResponse:
        """Raise; the trace becomes an error and holds the exception."""
        raise RuntimeError(f"the model has nothing to say in chat {chat_id}")


def health(request: HttpRequest) -> JsonResponse:
    """Answer the health check; not traced."""
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("chats/<str:chat_id>/messages", Messages.as_view()),
    path("chats/<str:chat_id>/fail", Fail.as_view()),
    path("health", health),
    path("", include("mlflow_middleware.django.urls")),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
else:
    asgi = get_asgi_application()
    wsgi = get_wsgi_application()
