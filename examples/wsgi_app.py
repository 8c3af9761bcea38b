"""A chat without a framework, with a route for feedback. Each request is one MLflow trace.

::

    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_EXPERIMENT_NAME=chats
    gunicorn --threads 4 wsgi_app:app
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from mlflow_middleware import feedback, wsgi
from mlflow_middleware.request_trace import annotate

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def chat(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the last message; without a framework, the app itself names its route."""
    annotate(route="/chats/{chat_id}/messages")
    question = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))["messages"][-1]["content"]
    completion = {"choices": [{"message": {"role": "assistant", "content": f"The question was: {question}"}}]}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(completion).encode()]


def vote(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Take a user's feedback."""
    body = environ["wsgi.input"].read(min(int(environ.get("CONTENT_LENGTH") or 0), feedback.MAX_BODY + 1))
    answered = feedback.answer(wsgi.exchange_of(environ), body)
    start_response(f"{answered.status} {HTTPStatus(answered.status).phrase}", list(answered.headers.items()))
    return [answered.body]


def routes(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Dispatch on method and path."""
    path = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] == "POST" and path.startswith("/chats/"):
        return chat(environ, start_response)
    if environ["REQUEST_METHOD"] == "POST" and path == "/feedback":
        return vote(environ, start_response)
    start_response("200 OK" if path == "/health" else "404 Not Found", [])
    return []


app = wsgi.TraceMiddleware(routes)
