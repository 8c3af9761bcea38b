"""The types of the Flask adapter, as type checkers see them; never executed."""

from __future__ import annotations

from flask import Blueprint, Flask
from typing_extensions import assert_type

from mlflow_middleware.flask import (
    MLflowMiddleware,
    annotate,
    carry,
    continue_trace,
    drop_trace,
    feedback_blueprint,
    job_trace,
    keep_trace,
    metrics_blueprint,
    outbound_headers,
)
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


def functions_for_views() -> None:
    """The functions that each adapter offers are those of the core."""
    assert_type(drop_trace(), None)
    assert_type(keep_trace(), None)
    assert_type(outbound_headers(), dict[str, str])
    with continue_trace("token") as nothing:
        assert_type(nothing, None)


@job_trace(name="nightly")
def nightly(limit: int) -> list[str]:
    """A job of a user's app."""
    return ["done"] * limit


def jobs() -> None:
    assert_type(nightly(limit=3), list[str])
    nightly("3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
