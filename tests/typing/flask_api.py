"""The types of the Flask adapter, as type checkers see them; never executed."""

from __future__ import annotations

from flask import Blueprint, Flask
from typing_extensions import assert_type

from mlflow_middleware.flask import MLflowMiddleware, annotate, carry, feedback_blueprint, metrics_blueprint
from mlflow_middleware.wsgi import TraceMiddleware


def app() -> None:
    flask = Flask(__name__)
    MLflowMiddleware(flask)
    extension = MLflowMiddleware(session_id_header="X-Chat-ID", include=["head"])
    assert_type(extension.init_app(flask), None)
    flask.register_blueprint(feedback_blueprint())
    flask.register_blueprint(metrics_blueprint("/internal/metrics"), url_prefix="/x")
    assert_type(feedback_blueprint(), Blueprint)
    assert_type(metrics_blueprint(), Blueprint)
    flask.wsgi_app = TraceMiddleware(flask.wsgi_app)  # type: ignore[method-assign]

    @flask.post("/chats/<chat_id>")
    @carry
    def chat(chat_id: str) -> dict[str, str]:
        annotate(session_id=chat_id)
        return {"answer": "yes"}

    assert_type(chat("c-1"), dict[str, str])
