"""The URLs of the Django app: ``POST /feedback``, below the path where they are included."""

from __future__ import annotations

from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from mlflow_middleware.django.feedback import feedback

urlpatterns = [path("feedback", csrf_exempt(feedback), name="mlflow_middleware_feedback")]
