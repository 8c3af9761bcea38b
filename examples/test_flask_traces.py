"""Tests of a Flask app's traces, without a server and without waiting.

::

    pytest test_flask_traces.py
"""

from examples.guide_flask import app
from mlflow.entities import Trace


def test_a_login_is_on_the_trace(captured_traces: list[Trace]) -> None:
    app.test_client().get("/me", headers={"Authorization": "Bearer t-1"})

    (trace,) = captured_traces
    assert trace.info.tags["mlflow.trace.user"] == "jane"
