"""A chat on Flask with a login, a stream, an error that the app handles, and a test of a trace.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn --threads 4 guide_flask:app
"""

from collections.abc import Iterator

import mlflow
from flask import Flask, Response, abort, g, request

from mlflow_middleware.flask import MLflowMiddleware, annotate

LOGINS = {"Bearer t-1": "jane"}
"""Stands in for the code that checks a login."""

app = Flask(__name__)
MLflowMiddleware(app)


@app.before_request
def log_in() -> None:
    """Authenticate the user, and add the user id to the trace."""
    g.user = LOGINS.get(request.headers.get("Authorization", ""))
    if g.user:
        annotate(user_id=g.user)


@app.get("/me")
def me() -> str:
    if not g.user:
        abort(401)
    return str(g.user)


@mlflow.trace(span_type="CHAT_MODEL")
def model(question: str) -> Iterator[str]:
    """Stand in for a model that answers word by word."""
    for word in question.split():
        yield f"data: {word}\n\n"


@app.post("/chats/<chat_id>/stream")
def stream(chat_id: str) -> Response:
    annotate(session_id=chat_id)
    return Response(model(request.args["question"]), mimetype="text/event-stream")


class ModelIsBusy(Exception):
    """Raised when the model is overloaded."""


@app.errorhandler(ModelIsBusy)
def busy(error: ModelIsBusy) -> tuple[dict[str, str], int]:
    annotate(exception=error)
    return {"detail": "try again"}, 503


@app.get("/busy")
def fail() -> str:
    """Fail with an error that the app handles."""
    raise ModelIsBusy("gpt-4o")


@app.get("/health")
def health() -> dict[str, str]:
    """Answer the health check; not traced."""
    return {"status": "ok"}
