"""The feedback route for Flask apps.

::

    app.register_blueprint(feedback_blueprint())  # POST /feedback; url_prefix="/api" makes it /api/feedback

``mlflow_middleware.feedback`` describes requests and responses. The route uses the options of the app's
``MLflowMiddleware``; options given here as keywords override them. With Flask-WTF's ``CSRFProtect``, exempt the
blueprint (``csrf.exempt(blueprint)``): it is protected because the body must be JSON, as described there.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from mlflow_middleware import feedback, wsgi
from mlflow_middleware.request_trace import SETTINGS_KEY


def feedback_blueprint(**options: object) -> Blueprint:
    """Create a blueprint with ``POST /feedback``.

    Args:
        options: Options of ``Settings``; they override those of the app's middleware.

    Raises:
        SettingsError: An option is unknown or ill-typed.
    """
    settings_for = feedback.settings_of_route(options)
    blueprint = Blueprint("mlflow_middleware", __name__)

    @blueprint.post("/feedback", endpoint="feedback")
    def serve() -> Response:
        settings = settings_for(request.environ.get(SETTINGS_KEY))
        body = feedback.read_body(request.stream)
        answered = feedback.answer(wsgi.exchange_of(request.environ), body, settings)
        return Response(answered.body, answered.status, answered.headers)

    return blueprint
