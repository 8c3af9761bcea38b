"""The chat on Flask.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn --threads 8 chat.flask_app:app        # in examples/; then open http://127.0.0.1:8000
"""

from typing import Any

from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue

from mlflow_middleware.flask import MLflowMiddleware, feedback_blueprint

from . import shared

app = Flask(__name__)
MLflowMiddleware(app, exclude=shared.NOT_TRACED)
app.register_blueprint(feedback_blueprint())


@app.get("/")
def page() -> str:
    """The chat's page."""
    return shared.page("Flask")


@app.post("/chats/<chat_id>/messages")
def answer(chat_id: str) -> ResponseReturnValue:
    """Answer the last message, as one answer or as a stream."""
    conversation = request.get_json()
    is_stream = bool(conversation.get("stream"))
    chunks = shared.answer(conversation["messages"], is_stream)
    if is_stream:
        return Response(shared.events(chunks), mimetype="text/event-stream")
    return shared.completion(chunks)


@app.post("/chats/<chat_id>/fail")
def fail(chat_id: str) -> dict[str, Any]:
    """Fail as a model might; the trace becomes an error and holds the exception."""
    raise RuntimeError(f"the model has nothing to say in chat {chat_id}")


@app.get("/traces/<trace_id>")
def trace(trace_id: str) -> ResponseReturnValue:
    """Redirect to the trace of an answer in MLflow."""
    return redirect(shared.trace_page(trace_id))


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
