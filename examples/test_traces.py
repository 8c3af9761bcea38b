"""Tests of an app's traces, without a server and without waiting.

::

    pytest test_traces.py
"""

import mlflow
from fastapi import FastAPI
from fastapi.testclient import TestClient
from mlflow.entities import Trace

from mlflow_middleware.fastapi import TraceMiddleware
from mlflow_middleware.testing import captured_traces as capturing

app = FastAPI()
app.add_middleware(TraceMiddleware)


@app.post("/chats/{chat_id}")
def chat(chat_id: str, question: dict[str, str]) -> dict[str, str]:
    """The app under test."""
    with mlflow.start_span("model") as span:
        span.set_inputs(question)
    return {"answer": "42"}


def test_an_answer_is_traced_with_its_user(captured_traces: list[Trace]) -> None:
    """With the pytest fixture, which comes with mlflow-middleware; the list grows with each request."""
    TestClient(app).post("/chats/c-1", json={"question": "Why?"}, headers={"X-User-ID": "jane"})

    (trace,) = captured_traces
    assert trace.info.tags["mlflow.trace.user"] == "jane"
    assert [span.name for span in trace.data.spans] == ["POST /chats/{chat_id}", "model"]
    assert trace.data.spans[0].outputs == {"answer": "42"}


def test_the_model_gets_the_users_question() -> None:
    """With the context manager, which works in any test framework."""
    with capturing() as traces:
        TestClient(app).post("/chats/c-1", json={"question": "Why?"})

    (model,) = traces[0].search_spans(name="model")
    assert model.inputs == {"question": "Why?"}
