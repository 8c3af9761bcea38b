"""Tests of a Django project's traces, without a server and without waiting.

::

    pytest test_django_traces.py
"""

import examples.guide_django  # noqa: F401 - configures Django, as pytest-django does it for a project
from django.test import Client
from mlflow.entities import Trace


def test_a_login_is_on_the_trace(captured_traces: list[Trace]) -> None:
    Client().get("/me", headers={"Authorization": "Bearer t-1"})

    (trace,) = captured_traces
    assert trace.info.tags["mlflow.trace.user"] == "jane"
