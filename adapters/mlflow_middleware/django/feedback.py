"""The feedback view for Django projects.

::

    urlpatterns = [path("", include("mlflow_middleware.django.urls")), ...]  # POST /feedback

What it takes and answers is in ``mlflow_middleware.feedback``; the options are those of ``settings.MLFLOW_MIDDLEWARE``.
It is a plain view, which Django runs in a thread under ASGI.

**CSRF.** In those URLs the view is exempt from Django's token, so that a page's ``fetch`` needs none: the body must be
declared as JSON, which no form of another site can send, and a script there only with the project's CORS permission. A
project that wants the token all the same routes to the view itself, which is not exempt::

    path("feedback", mlflow_middleware.django.feedback.feedback)
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.http import require_http_methods

from mlflow_middleware.django import configuration
from mlflow_middleware.django.middleware import exchange_of
from mlflow_middleware.feedback import answer, read_body
from mlflow_middleware.request_trace import current


@require_http_methods(["POST"])
def feedback(request: HttpRequest) -> HttpResponse:
    """Take a user's feedback."""
    try:
        body = read_body(request)
    except UnreadablePostError:  # the client has gone: it has not said all
        body = b""
    settings = None if current() else configuration.load()
    answered = answer(exchange_of(request), body, settings)
    return HttpResponse(answered.body, status=answered.status, headers=answered.headers)
