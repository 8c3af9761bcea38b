"""The feedback view for Django projects.

::

    urlpatterns = [path("", include("mlflow_middleware.django.urls")), ...]  # POST /feedback

``mlflow_middleware.feedback`` describes requests and responses; the options are those of
``settings.MLFLOW_MIDDLEWARE``. It is a sync view, which Django runs in a thread under ASGI.

**CSRF.** In these URLs the view is exempt from Django's CSRF token, so that a page's ``fetch`` needs none: the body
must be declared as JSON, which a form on another site cannot send, and a script there only with the project's CORS
permission. To require the token, route to the view itself, which is not exempt::

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
    """Accept a user's feedback."""
    try:
        body = read_body(request)
    except UnreadablePostError:  # the client has disconnected
        body = b""
    settings = None if current() else configuration.load()
    answered = answer(exchange_of(request), body, settings)
    return HttpResponse(answered.body, status=answered.status, headers=answered.headers)
