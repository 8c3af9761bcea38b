"""A chat on Flask. Each request is one MLflow trace.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn --threads 4 flask_app:app
"""

from typing import Any

import mlflow
from flask import Flask, request
from mlflow.entities import SpanType

from mlflow_middleware.flask import MLflowMiddleware, feedback_blueprint

app = Flask(__name__)
MLflowMiddleware(app)
app.register_blueprint(feedback_blueprint())


def pretend_model(messages: list[dict[str, str]]) -> dict[str, Any]:
    """Stand in for a real model; the answer has OpenAI's format, which MLflow shows as a chat."""
    with mlflow.start_span("pretend_model", span_type=SpanType.CHAT_MODEL) as span:
        span.set_inputs({"messages": messages})
        questions = [message["content"] for message in messages if message["role"] == "user"]
        text = f"Question {len(questions)} was: {questions[-1]}" if questions else "Ask me something."
        completion = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        span.set_outputs(completion)
    return completion


@app.post("/chats/<chat_id>/messages")
def answer(chat_id: str) -> dict[str, Any]:
    """Answer the last message; the model's span nests under the request's."""
    return pretend_model(request.get_json()["messages"])


@app.post("/chats/<chat_id>/fail")
def fail(chat_id: str) -> dict[str, Any]:
    """Fail as a model might; the trace becomes an error and holds the exception."""
    raise RuntimeError(f"the model has nothing to say in chat {chat_id}")


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
